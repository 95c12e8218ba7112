"""The file of paid answers: one line each, written as it comes, so that no answer is paid for twice."""

import fcntl
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from guardreasoner.errors import InputError

_SYNC_EVERY = 1.0
"""Seconds between forced writes to the disk. A killed process loses nothing; this is for a machine that goes down."""


class AnswerLog:
    """Answers by record and key, in an append-only JSONL file; texts stay in the file.

    A row holds ``key``, ``record_id``, ``attempt``, ``text``, ``finish_reason``, ``faults``, ``characters`` (of the
    prompt), ``prompt_tokens`` and ``completion_tokens``. Rows of other keys are left where they are.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.answers = 0
        self.counted = 0
        self.characters = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._places: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._file: BinaryIO | None = None
        self._sync = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self) -> int:
        """Read what is there; return the place behind the last whole line.

        Raises:
            InputError: a line that is not the last is not an answer.
        """
        self.answers = self.counted = self.characters = self.prompt_tokens = self.completion_tokens = 0
        self._places.clear()
        whole = 0
        if not self.path.exists():
            return whole
        with self.path.open("rb") as lines:
            broken = 0
            for number, line in enumerate(lines, start=1):
                if broken:
                    raise InputError(f"{self.path}:{broken}: not an answer; only the last line may be torn")
                try:
                    row = json.loads(line) if line.endswith(b"\n") else None
                    self._note(row, whole)
                except (ValueError, TypeError, KeyError):
                    broken = number
                    continue
                whole += len(line)
        return whole

    def open(self) -> int:
        """Read what is there and make ready to append; return how many bytes of a torn last line were cut off.

        Raises:
            InputError: as :meth:`read`, or another run writes to the same file.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(f"{self.path}: another run is writing here") from None
        except OSError:
            pass  # a file system without locks
        torn = self.path.stat().st_size - (whole := self.read())
        if torn:
            self._file.truncate(whole)
            self._file.seek(0, os.SEEK_END)
        self._thread = threading.Thread(target=self._keep_syncing, name="ledger-sync", daemon=True)
        self._thread.start()
        return torn

    def rows(self, record_id: str, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (place, row) of a record's answers under a key, in the order they came."""
        for place in self._places.get((record_id, key), ()):
            yield place, self.at(place)

    def at(self, place: int) -> dict[str, Any]:
        """Return the row at a place in the file."""
        with self.path.open("rb") as lines:
            lines.seek(place)
            return json.loads(lines.readline())

    def append(self, row: dict[str, Any]) -> int:
        """Write a row; return its place."""
        assert self._file is not None
        place = self._file.tell()
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        self._sync.set()
        self._note(row, place)
        return place

    def close(self) -> None:
        """Force what was written to the disk and let others write."""
        if self._file is None or self._file.closed:
            return
        self._ended.set()
        self._sync.set()
        if self._thread is not None:
            self._thread.join()
        if not self.answers:
            # before the lock goes; a run that never got an answer leaves nothing behind
            self.path.unlink(missing_ok=True)
            with suppress(OSError):
                self.path.parent.rmdir()
        self._file.close()

    def _note(self, row: Any, place: int) -> None:
        self._places[row["record_id"], row["key"]].append(place)
        self.answers += 1
        if row["prompt_tokens"] is not None and row["completion_tokens"] is not None:
            self.counted += 1
            self.characters += row["characters"]
            self.prompt_tokens += row["prompt_tokens"]
            self.completion_tokens += row["completion_tokens"]

    def _keep_syncing(self) -> None:
        assert self._file is not None
        while True:
            self._sync.wait()
            self._sync.clear()
            os.fsync(self._file.fileno())
            if self._ended.wait(_SYNC_EVERY):
                os.fsync(self._file.fileno())
                return
