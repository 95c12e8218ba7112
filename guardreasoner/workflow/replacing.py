"""Replace a folder atomically, and repair what a killed process left beside it."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from guardreasoner.records.atomic_file import leftovers, naming, owned, sync_folder, temporary

_NEW, _OLD, _FILE = "new", "old", "partial"


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder beside ``path`` and move it to ``path`` at the end; after an error ``path`` is unchanged.

    The files of the new folder get the permissions that the umask allows. It is on the disk before it is moved, and the
    old one stays complete until then. Two renames are needed, since a folder that is not empty cannot be replaced in
    one; a process killed between them leaves the old folder as ``.NAME.TOKEN.old`` beside ``path``, which
    :func:`restore_output` renames back.

    Raises:
        OSError: a file could not be written; its ``filename`` is ``path``.
    """
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        restore_output(path)
        new = temporary(path, _NEW)
        old = new.with_suffix(f".{_OLD}")
        new.mkdir()
        try:
            with owned(new):
                yield new
                _make_readable(new)
                _sync(new)
                try:
                    if os.path.lexists(path):
                        path.rename(old)
                    new.rename(path)
                except BaseException:
                    if os.path.lexists(old) and not os.path.lexists(path):
                        old.rename(path)
                    raise
                sync_folder(path.parent)
            _discard(old)
        finally:
            _remove(new)


def restore_output(path: str | Path) -> None:
    """Repair what a killed process left beside a file or folder that it was replacing.

    If ``path`` is missing, its old version is renamed back. Unfinished new versions and superseded old ones are
    removed, except those of a process that still runs.
    """
    path = Path(path)
    for unfinished in (*leftovers(path, _NEW), *leftovers(path, _FILE)):
        _remove(unfinished)
    for old in leftovers(path, _OLD):
        if old.with_suffix(f".{_NEW}").exists():
            continue  # its process still runs, and is between the two renames
        if os.path.lexists(path):
            _discard(old)
        else:
            old.rename(path)
            sync_folder(path.parent)


def _discard(old: Path) -> None:
    """Remove an old version. It is renamed first, so that ``.old`` is never the name of a half-removed folder."""
    garbage = old.with_suffix(f".{_NEW}")
    with suppress(FileNotFoundError):
        old.rename(garbage)
    _remove(garbage)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _make_readable(folder: Path) -> None:
    """Give files below a folder at least the permissions that the umask allows, which the new folder itself has.

    safetensors creates its files for the owner alone, so a server that runs as another user could not read them.
    """
    wanted = folder.stat().st_mode & 0o666
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            mode = stat.S_IMODE(os.lstat(path).st_mode)
            if not os.path.islink(path) and mode | wanted != mode:
                os.chmod(path, mode | wanted)


def _sync(folder: Path) -> None:
    """Flush all files and folders below a folder, and the folder itself, to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))
