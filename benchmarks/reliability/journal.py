"""Results as JSON lines, one per trial, written when the trial ends: a killed campaign repeats no finished trial."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """One finished trial.

    Args:
        trial: Name of the trial.
        count: Successes or failures that it counts as.
        failure: What went wrong, None if nothing did.
        note: A measured figure for the page.
        seconds: Duration.
        date: Day on which it ran, in UTC.
        commit: Commit of the code, with "+" if there were changes.
        machine: Processor, cores and system.
    """

    trial: str
    count: int
    failure: str | None
    note: str | None
    seconds: float
    date: str
    commit: str
    machine: str


class Journal:
    """The results of one part.

    Args:
        path: File of results; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def results(self) -> list[Result]:
        """Return all results in the order in which they were added."""
        return list(self._read())

    def add(self, result: Result) -> None:
        """Append a result and wait until it is on disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def drop_unfinished_line(self) -> None:
        """Remove a last line without an end, which is what a kill during ``add`` leaves behind."""
        if self.path.exists():
            content = self.path.read_bytes()
            complete = content[: content.rfind(b"\n") + 1]
            if complete != content:
                os.truncate(self.path, len(complete))

    def drop_failures(self) -> None:
        """Remove the failed trials, so that they run again."""
        passed = [result for result in self.results() if result.failure is None]
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.write_text(
            "".join(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in passed), encoding="utf-8"
        )
        partial.replace(self.path)

    def _read(self) -> Iterator[Result]:
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").split("\n"):
            if line:
                yield Result(**json.loads(line))
