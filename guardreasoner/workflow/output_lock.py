"""One lock per output, so that two commands never write to the same place at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.workflow.file_lock import FileLock


def lock_path(output: str | Path) -> Path:
    """Return the path of the lock file of an output."""
    path = Path(os.path.abspath(output))
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked_output(output: str | Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of an output, the file ``.NAME.lock`` beside it, which a crash frees.

    The file, and folders that were made for it, are removed at the end.

    Args:
        output: file or folder that a command writes.
        wait: seconds to wait for another process that holds the lock.

    Raises:
        InputError: another process holds the lock, or the file cannot be made.
    """
    lock = FileLock(lock_path(output), str(output))
    made = [folder for folder in lock.path.parents if not folder.exists()]
    try:
        lock.path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(wait)
    except OSError as error:
        raise InputError(f"{lock.path}: cannot be made: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            for folder in made:
                folder.rmdir()  # fails, and ends the loop, at the first folder that is not empty
