"""Append-only log of a teacher's answers: each is written as it arrives, so that none is paid for twice."""

import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from guardreasoner.errors import InputError
from guardreasoner.generators.rollout_log import lock

_SYNC_EVERY = 1.0
"""Seconds between calls of fsync. Only a crash of the machine, not of the process, loses what is not synced."""


class AnswerLog:
    """Answers by request key, in an append-only JSONL file; only an index of it is kept in memory.

    A row holds ``key``, ``record_id``, ``attempt``, ``text``, ``finish_reason``, ``problem`` (why the server sent no
    usable text), ``faults``, ``characters`` (of the prompt), ``prompt_tokens`` and ``completion_tokens``. Rows of other
    keys are kept in the file.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.answers = 0
        self.counted = 0
        """Answers whose tokens the server counted. The following three are sums over these answers."""
        self.characters = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._index: dict[str, list[tuple[str, int]]] = defaultdict(list)
        """Record id and offset of each answer, by key."""
        self._file: BinaryIO | None = None
        self._sync_needed = threading.Event()
        self._closing = threading.Event()
        self._sync_thread: threading.Thread | None = None

    def read(self) -> int:
        """Index the file; return the offset after the last complete line.

        Raises:
            InputError: raised if a line other than the last is not an answer.
        """
        self.answers = self.counted = self.characters = self.prompt_tokens = self.completion_tokens = 0
        self._index.clear()
        end = 0
        if not self.path.exists():
            return end
        with self.path.open("rb") as lines:
            broken_line = 0
            for number, line in enumerate(lines, start=1):
                if broken_line:
                    raise InputError(f"{self.path}:{broken_line}: not an answer; only the last line may be truncated")
                try:
                    self._add_to_index(json.loads(line) if line.endswith(b"\n") else None, end)
                except (ValueError, TypeError, KeyError):
                    broken_line = number
                    continue
                end += len(line)
        return end

    def open(self) -> int:
        """Index the file and open it for appending; return how many bytes of a truncated last line were removed.

        Raises:
            InputError: raised as by :meth:`read`, or if another run is writing to the file.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        lock(self._file, self.path)
        end = self.read()
        truncated = self.path.stat().st_size - end
        if truncated:
            self._file.truncate(end)
            self._file.seek(0, os.SEEK_END)
        self._sync_thread = threading.Thread(target=self._sync_until_closed, name="answer-log-sync", daemon=True)
        self._sync_thread.start()
        return truncated

    def rows(self, record_id: str, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield offset and row of each answer under a key, oldest first; if the record has some, only its own."""
        answers = self._index.get(key, ())
        own = [offset for answered, offset in answers if answered == record_id]
        for offset in own or [offset for _, offset in answers]:
            yield offset, self.row_at(offset)

    def row_at(self, offset: int) -> dict[str, Any]:
        """Return the row that begins at an offset of the file."""
        with self.path.open("rb") as lines:
            lines.seek(offset)
            return json.loads(lines.readline())

    def append(self, row: dict[str, Any]) -> int:
        """Append a row; return its offset."""
        assert self._file is not None
        offset = self._file.tell()
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        self._sync_needed.set()
        self._add_to_index(row, offset)
        return offset

    def close(self) -> None:
        """Sync the file to the disk and release its lock; remove it if it holds no answer."""
        if self._file is None or self._file.closed:
            return
        self._closing.set()
        self._sync_needed.set()
        if self._sync_thread is not None:
            self._sync_thread.join()
        if not self.answers:
            # while the lock is still held
            self.path.unlink(missing_ok=True)
            with suppress(OSError):
                self.path.parent.rmdir()
        self._file.close()

    def _add_to_index(self, row: Any, offset: int) -> None:
        self._index[row["key"]].append((row["record_id"], offset))
        self.answers += 1
        if row["prompt_tokens"] is not None and row["completion_tokens"] is not None:
            self.counted += 1
            self.characters += row["characters"]
            self.prompt_tokens += row["prompt_tokens"]
            self.completion_tokens += row["completion_tokens"]

    def _sync_until_closed(self) -> None:
        assert self._file is not None
        while True:
            self._sync_needed.wait()
            self._sync_needed.clear()
            os.fsync(self._file.fileno())
            if self._closing.wait(_SYNC_EVERY):
                os.fsync(self._file.fileno())
                return
