"""How far a run over records is: a bar in a terminal, a line now and then elsewhere."""

import logging
import time
from itertools import islice
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("guardreasoner")

_LINE_EVERY = 10.0
"""Seconds between lines, where there is no terminal."""


class RecordProgress:
    """Count records as they are done and show it.

    Args:
        title: what is done with them.
        total: records there are; None: not known.
        console: where to; None: standard output.
    """

    def __init__(self, title: str, total: int | None, console: Console | None = None) -> None:
        console = console or Console()
        self.total = total
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn(title),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[said]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task("", total=total, said="")
            self._bar.start()

    def show(self, done: int, fresh: int, said: str = "", tokens: int | None = None) -> None:
        """Show how far it is.

        Args:
            done: records.
            fresh: those of them that were done in this run.
            said: more to say of them.
            tokens: written in this run, where somebody counts them.
        """
        now = time.monotonic()
        spent = max(now - self._started, 1e-9)
        speed = fresh / spent
        words = [said] if said else []
        words += [f"{speed:.1f} records/s"] + ([] if tokens is None else [f"{tokens / spent:,.0f} tokens/s"])
        if self._bar is not None:
            self._bar.update(self._task, completed=done, said="; ".join(words))
        elif now - self._said >= _LINE_EVERY:
            self._said = now
            of = "" if self.total is None else f" of {self.total:,}"
            left = "" if self.total is None or not fresh else f", {(self.total - done) / speed / 60:.0f} min left"
            log.info("%s%s: %s%s", f"{done:,}", of, "; ".join(words), left)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def total_of(trainer: Any) -> int | None:
    """Return how many records a trainer's predict loader will give; None when it does not know."""
    try:
        chunks = trainer.predict_dataloaders.dataset
        most = trainer.num_predict_batches[0]
        return sum(map(len, islice(chunks, most if isinstance(most, int) else len(chunks))))
    except (AttributeError, IndexError, TypeError):
        return None
