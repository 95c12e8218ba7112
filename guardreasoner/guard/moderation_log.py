"""Rows of an unfinished moderation: an append-only file of rows, and commits that survive a crash at any moment."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from guardreasoner.errors import InputError
from guardreasoner.generators.rollout_log import write_all
from guardreasoner.records.atomic_file import replacing_file, sync_folder

log = logging.getLogger("guardreasoner")


class ModerationLog:
    """The folder ``.NAME.partial`` beside the output, which holds its rows until all are written.

    A commit appends rows to ``rows.jsonl``, flushes them to the disk, and then appends a line to ``commits`` with the
    number of rows and bytes and their SHA-256. Rows without such a line are dropped. The caller holds the lock of the
    output.

    Args:
        output: file that the finished run becomes.
        identity: everything that determines the rows, JSON-serializable.

    Raises:
        InputError: the folder is of a run with another identity, which the message names.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any]) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.partial")
        self.rows = 0
        """Number of committed rows."""
        self.path = self.folder / "rows.jsonl"
        """The rows so far."""
        self._commits_path = self.folder / "commits"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._require_same(json.loads(json.dumps(identity)))
            size, commits = self._intact()
            self._rows: BinaryIO = _opened(self.path, size)
            self._commits: BinaryIO = _opened(self._commits_path, commits)
        except OSError as error:
            raise InputError(f"{output}: cannot be written: {error.strerror}") from None

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Commit rows."""
        data = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
        write_all(self._rows, data)
        os.fsync(self._rows.fileno())
        write_all(self._commits, _line(len(rows), data))
        self.rows += len(rows)

    def publish(self) -> None:
        """Move the rows to the output, in one step, and remove the folder."""
        self.close()
        self.path.replace(self.output)
        sync_folder(self.output.parent)
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Close the files; the run can be continued."""
        self._rows.close()
        self._commits.close()

    def _require_same(self, identity: dict[str, Any]) -> None:
        """Write the identity of a new run, or compare it with that of the run to continue."""
        path = self.folder / "settings.json"
        if not path.is_file():
            for file in (self.path, self._commits_path):
                file.unlink(missing_ok=True)
            with replacing_file(path) as partial:
                partial.write_text(json.dumps(identity, indent=1, ensure_ascii=False), encoding="utf-8")
            return
        try:
            former = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{path}: damaged", f"remove {self.folder} to start anew") from None
        if difference := _difference(former, identity):
            key, was, now = difference
            raise InputError(
                f"{self.output}: an unfinished run has another {key}: {_short(was)}, now {_short(now)}",
                f"repeat the command of that run, or remove {self.folder} to start anew",
            )

    def _intact(self) -> tuple[int, int]:
        """Return the size of the committed rows and of the commits, up to the first that is damaged."""
        if not (self.path.is_file() and self._commits_path.is_file()):
            return 0, 0
        size = commits = 0
        with self.path.open("rb") as rows:
            for line, count, length in _commit_lines(self._commits_path.read_bytes()):
                if _line(count, rows.read(length)) != line:
                    log.warning("%s: damaged after %s rows, which are judged again", self.path, f"{self.rows:,}")
                    break
                size, commits, self.rows = size + length, commits + len(line), self.rows + count
        return size, commits


def _opened(path: Path, size: int) -> BinaryIO:
    """Return a file that is open for appending after ``size`` bytes."""
    file = path.open("ab", buffering=0)
    file.truncate(size)
    return file


def _line(count: int, data: bytes) -> bytes:
    return f"{count} {len(data)} {hashlib.sha256(data).hexdigest()}\n".encode()


def _commit_lines(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each complete line with its number of rows and bytes; end at a line of another form."""
    for line in content.splitlines(keepends=True):
        words = line.split()
        if not line.endswith(b"\n") or len(words) != 3 or not (words[0].isdigit() and words[1].isdigit()):
            return
        yield line, int(words[0]), int(words[1])


def _difference(former: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> tuple[str, Any, Any] | None:
    """Return the name and both values of the first setting that differs; those of mappings within are named apart."""
    for key in {**former, **now}:
        first, second = former.get(key), now.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            if found := _difference(first, second, f"{where}{key}: "):
                return found
        elif first != second:
            return f"{where}{key}", first, second
    return None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}…"
