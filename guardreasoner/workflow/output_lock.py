"""One lock per output, so that two commands never write to the same place at once."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from guardreasoner.errors import InputError


@contextmanager
def locked_output(output: str | Path) -> Iterator[None]:
    """Hold the lock of an output, the file ``.NAME.lock`` beside it, which the operating system frees after a crash.

    The file, and folders that were made for it, are removed at the end. On file systems without locks, nothing is
    locked.

    Args:
        output: file or folder that a command writes.

    Raises:
        InputError: another process holds the lock, or the file cannot be made.
    """
    output = Path(os.path.abspath(output))
    path = output.with_name(f".{output.name}.lock")
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path)
    except BlockingIOError:
        raise InputError(
            f"{output}: another command is writing here (process {_holder(path)})",
            "wait for it, or choose another --output",
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be made: {error.strerror}") from None
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()  # fails, and ends the loop, at the first folder that is not empty
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Return a descriptor of the locked file; raise ``BlockingIOError`` if another process holds the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:
                pass  # the file system has no locks
            # The former holder may have removed the file since it was opened; its lock would then protect nothing.
            if os.fstat(descriptor).st_nlink:
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip() or "unknown"
    return "unknown"
