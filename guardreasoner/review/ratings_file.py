"""A ratings file open for writing: one writer, one line at a time, each on disk before it is acknowledged."""

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from guardreasoner.errors import InputError
from guardreasoner.generators.rollout_log import lock, write_all
from guardreasoner.records.atomic_file import sync_folder
from guardreasoner.review.ratings import Ratings, read_ratings

_LINE_START = b'{"kind": "'


class RatingsFile:
    """A ratings file, open and locked against other writers.

    Args:
        path: path of the file; it and its folder are created if missing.

    Raises:
        InputError: if the file cannot be opened, if another server writes to it, or if its content is no ratings file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("a+b", buffering=0)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            lock(self._file, path, "review")
            self.ratings: Ratings = read_ratings([path])
            self.truncated = self._repair_end()
            self._end = self._size()
            sync_folder(path.parent)
        except BaseException:
            self._file.close()
            raise

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line and return once it is on disk.

        Raises:
            OSError: if the line could not be written; the file is then unchanged.
        """
        text = json.dumps(line, ensure_ascii=False) + "\n"
        # a lone surrogate has no UTF-8 form; the error handler writes its JSON escape
        content = text.encode(errors="backslashreplace")
        if not self.path.exists() or not os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno())):
            raise OSError(errno.ENOENT, "the file was removed or replaced")
        if self._size() != self._end:  # rest of a line that failed before
            self._file.truncate(self._end)
        try:
            write_all(self._file, content)
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise
        self._end += len(content)

    def close(self) -> None:
        """Close the file and release the lock."""
        self._file.close()

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _repair_end(self) -> int:
        """Make the file end in a complete line; return the number of truncated lines removed, 0 or 1."""
        content = self.path.read_bytes()
        complete, newline, rest = content.rpartition(b"\n")
        if not rest:
            return 0
        if not self.ratings.truncated:  # the last line is valid and lacks only its newline
            write_all(self._file, b"\n")
            return 0
        if not (rest.startswith(_LINE_START) or _LINE_START.startswith(rest)):
            raise InputError(f"{self.path}: the last line is not a rating", "name another file: --ratings FILE")
        self._file.truncate(len(complete) + len(newline))
        return 1
