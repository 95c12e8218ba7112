"""Progress of a run over records: a bar in a terminal, otherwise a log line every few seconds."""

import logging
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("guardreasoner")

_LOG_EVERY = 10.0
"""Seconds between log lines if there is no terminal."""


class RecordProgress:
    """Show how many records are done.

    Args:
        title: what the run does.
        total: number of records; None if unknown.
        console: where the bar is drawn; None is standard output.
    """

    def __init__(self, title: str, total: int | None, console: Console | None = None) -> None:
        console = console or Console()
        self.total = total
        self._started = self._last_logged = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn(title),
                BarColumn(bar_width=12),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task("", total=total, status="")
            self._bar.start()

    def show(self, done: int, fresh: int, status: str = "", tokens: int | None = None) -> None:
        """Update the display.

        Args:
            done: records done so far, including those of earlier runs.
            fresh: records done in this run.
            status: text shown beside the counts.
            tokens: tokens generated in this run; None if unknown.
        """
        now = time.monotonic()
        elapsed = max(now - self._started, 1e-9)
        speed = fresh / elapsed
        details = [status] if status else []
        details += [f"{speed:.1f} records/s"] + ([] if tokens is None else [f"{tokens / elapsed:,.0f} tokens/s"])
        if self._bar is not None:
            self._bar.update(self._task, completed=done, status="; ".join(details))
        elif now - self._last_logged >= _LOG_EVERY:
            self._last_logged = now
            of_total = "" if self.total is None else f" of {self.total:,}"
            left = "" if self.total is None or not fresh else f", {(self.total - done) / speed / 60:.0f} min left"
            log.info("%s%s: %s%s", f"{done:,}", of_total, "; ".join(details), left)

    def close(self) -> None:
        """Stop the bar; it stays on screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def record_total(loaders: Any, batches: Sequence[int | float]) -> int | None:
    """Return how many records a trainer's loaders will yield; None if it cannot be known.

    Args:
        loaders: a loader, or a list of loaders, whose dataset is a sequence of batches of records.
        batches: number of batches that the trainer takes from each; infinite for all.
    """
    try:
        total = 0
        loaders = loaders if isinstance(loaders, list) else [loaders]
        for loader, limit in zip(loaders, batches, strict=False):
            chunks = loader.dataset
            total += sum(map(len, islice(chunks, limit if isinstance(limit, int) else len(chunks))))
        return total
    except (AttributeError, TypeError):
        return None
