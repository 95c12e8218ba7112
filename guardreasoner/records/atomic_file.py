"""Replace files atomically: written beside the target, flushed to the disk, then moved to it."""

import errno
import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from guardreasoner.errors import InputError, machine_error

_TOKEN_BYTES = 4
_TOKEN_PATTERN = "[0-9a-f]" * 2 * _TOKEN_BYTES


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move it to ``path`` at the end; an error leaves ``path`` unchanged.

    The file is on the disk before it is moved. Temporary files that killed processes left are removed. A link is
    replaced by the file, so that nobody's link leads the output elsewhere.

    Raises:
        OSError: the file could not be written, or ``path`` is a device, a pipe or a folder; ``filename`` is ``path``.
    """
    path = Path(path)
    with naming(path):
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in leftovers(path, "partial"):
            leftover.unlink(missing_ok=True)
        partial = temporary(path, "partial")
        partial.touch()
        try:
            with owned(partial):
                yield partial
                with partial.open("rb") as written:
                    os.fsync(written.fileno())
                partial.replace(path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def temporary(path: Path, state: str) -> Path:
    """Return a new name beside a path, ``.NAME.TOKEN.STATE``.

    The token is random, not the process id, which a container gives to the next run too.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN_BYTES)}.{state}")


def is_partial(path: Path) -> bool:
    """Return whether a file has a temporary name of :func:`replacing_file`; a killed process may have left it."""
    return path.match(f".*.{_TOKEN_PATTERN}.partial")


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Hold a lock on a temporary file or folder, which distinguishes it from what a killed process left."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # not supported by every file system
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def leftovers(path: Path, state: str) -> list[Path]:
    """Return the temporary files and folders of a path that no running process owns, oldest first.

    Without locks on the file system, none is returned.
    """
    pattern = f".{glob.escape(path.name)}.{_TOKEN_PATTERN}.{state}"
    return sorted(filter(_is_abandoned, path.parent.glob(pattern)), key=lambda found: found.lstat().st_mtime_ns)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not supported by every file system
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make a failure to write ``path`` name it, instead of a temporary file or, as libraries do, nothing."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        fault = machine_error(error)
        if fault is None or (fault.filename is not None and f".{path.name}." not in str(fault.filename)):
            raise
        raise OSError(fault.errno, fault.strerror, str(path)) from error


def _is_abandoned(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return path.is_symlink()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
