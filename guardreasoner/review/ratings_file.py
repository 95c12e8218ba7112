"""A ratings file that is written to: one writer, a line at a time, on the disk before anybody is told so."""

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from guardreasoner.errors import InputError
from guardreasoner.generators.rollout_log import lock, write_all
from guardreasoner.review.ratings import Ratings, read_ratings

_BEGINNING = b'{"kind": "'


class RatingsFile:
    """The file, open and kept from other writers.

    Args:
        path: where; it and its folder are made if there is none.

    Raises:
        InputError: it cannot be opened, another server has it, or it holds something else.
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
            self.found: Ratings = read_ratings([path])
            self.torn = self._mend()
            self._end = self._size()
            _sync_folder(path.parent)
        except BaseException:
            self._file.close()
            raise

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line, and return when it is on the disk.

        Raises:
            OSError: it is not, and the file is as it was.
        """
        text = json.dumps(line, ensure_ascii=False) + "\n"
        # half a surrogate pair has no UTF-8, but a JSON escape, and that is what the error handler writes
        content = text.encode(errors="backslashreplace")
        if not self.path.exists() or not os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno())):
            raise OSError(errno.ENOENT, "the file that was there has been taken away")
        if self._size() != self._end:  # what a line that failed has left
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
        """Let others write."""
        self._file.close()

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _mend(self) -> int:
        """Make the file end in a whole line; return how many were cut off while they were written, 0 or 1."""
        content = self.path.read_bytes()
        whole, end, rest = content.rpartition(b"\n")
        if not rest:
            return 0
        if not self.found.torn:  # all but its end is there, and it has been read
            write_all(self._file, b"\n")
            return 0
        if not (rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest)):
            raise InputError(f"{self.path}: ends in what is no line of ratings", "name another file: --ratings FILE")
        self._file.truncate(len(whole) + len(end))
        return 1


def _sync_folder(folder: Path) -> None:
    """Put the name of a new file on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # a file system that cannot
    finally:
        os.close(descriptor)
