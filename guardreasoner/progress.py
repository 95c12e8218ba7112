"""How far a run over records is: a bar in a terminal, a line now and then elsewhere."""

import logging
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("guardreasoner")

_LINE_EVERY = 10.0
"""Seconds between lines, where there is no terminal."""


class RecordProgress:
    """Count records as they are done and show it.

    Args:
        total: records there are; None: not known.
        console: where to; None: standard output.
    """

    def __init__(self, total: int | None, console: Console | None = None) -> None:
        console = console or Console()
        self.total = total
        self._started = self._said = time.monotonic()
        self._first: int | None = None
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("synthesis"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[said]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task("", total=total, said="")
            self._bar.start()

    def show(self, kept: int, refused: int, failed: int, fresh: int) -> None:
        """Show how many records have ended in which way, and how many of them were done in this run."""
        now = time.monotonic()
        speed = fresh / max(now - self._started, 1e-9)
        done = kept + refused + failed
        said = f"kept {kept:,}, refused {refused:,}, failed {failed:,}; {speed:.1f} records/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, said=said)
        elif now - self._said >= _LINE_EVERY:
            self._said = now
            of = "" if self.total is None else f" of {self.total:,}"
            left = "" if self.total is None or not fresh else f", {(self.total - done) / speed / 60:.0f} min left"
            log.info("%s%s: %s%s", f"{done:,}", of, said, left)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def total_of(trainer: Any) -> int | None:
    """Return how many records a trainer's predict loader will give; None when it does not know."""
    try:
        loader = trainer.predict_dataloaders
        return min(len(loader.dataset), int(trainer.num_predict_batches[0]) * loader.batch_size)
    except (AttributeError, IndexError, OverflowError, TypeError):
        return None
