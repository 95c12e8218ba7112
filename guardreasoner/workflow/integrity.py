"""Compare artefacts with the hashes in their manifests, to find damaged files and files edited by hand."""

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.workflow.manifest import Manifest, described_hash, manifest_path

log = logging.getLogger("guardreasoner")

_SHOWN = 16  # digits of a hash in messages


@dataclass(frozen=True)
class ChangedFile:
    """A file that differs from its manifest.

    Args:
        path: the file.
        manifest: the manifest that holds its hash.
        expected: SHA-256 (hex) in the manifest.
        found: SHA-256 (hex) of the file; None if it is missing.
    """

    path: Path
    manifest: Path
    expected: str
    found: str | None

    def __str__(self) -> str:
        """Return the file with both hashes, shortened."""
        found = "the file is missing" if self.found is None else f"found {self.found[:_SHOWN]}"
        return f"{self.path}: damaged or edited since it was made: expected SHA-256 {self.expected[:_SHOWN]}, {found}"


def changed_files(artefact: str | Path) -> Iterator[ChangedFile]:
    """Yield the files of an artefact that differ from its manifest; a file of a folder has the folder's manifest.

    Nothing is known about files that no manifest describes, such as those of other tools, and about folders whose
    manifest is of an earlier version, which holds no hash of each file.

    Args:
        artefact: folder or file.

    Raises:
        InputError: a file cannot be read.
    """
    yield from _changed(Path(artefact), ())


def require_unchanged(folder: str | Path, ignored_suffixes: Collection[str] = ()) -> None:
    """Require that the files of a folder, or one file of a folder, are those that its manifest describes.

    Args:
        folder: folder or file; without a manifest nothing is required.
        ignored_suffixes: suffixes of files to leave out, such as ``.md``.

    Raises:
        InputError: a file is damaged, edited, missing, or cannot be read, or the manifest itself is damaged.
    """
    _require_readable_manifest(Path(folder))
    changed = next(_changed(Path(folder), ignored_suffixes), None)
    if changed is not None:
        raise InputError(
            str(changed),
            f'restore the file or make it again; to accept an edit of yours, remove its line under "files" in '
            f"{changed.manifest}",
        )


def warn_if_changed(artefact: str | Path) -> None:
    """Log a warning, once in a process, for each file of an artefact that differs from its manifest."""
    for changed in changed_files(artefact):
        _warn(str(changed))


def _require_readable_manifest(path: Path) -> None:
    """Require that a manifest of ours can be read; other tools may use the same file name for something else."""
    for owner in (path, path.parent):
        file = manifest_path(owner)
        if not file.is_file() or Manifest.read(owner) is not None:
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        if sum(f'"{name}":' in text for name in ("command", "fingerprint", "inputs", "versions", "origins")) >= 3:
            raise InputError(
                f"{file}: damaged, so the files that it describes cannot be checked",
                "make the artefact again, or remove the file to use the artefact unchecked",
            )


@cache
def _warn(message: str) -> None:
    log.warning("%s", message)


def _changed(path: Path, ignored_suffixes: Collection[str]) -> Iterator[ChangedFile]:
    for file, expected, manifest in _recorded(path):
        if file.suffix not in ignored_suffixes:
            found = described_hash(file) if file.is_file() else None
            if found != expected:
                yield ChangedFile(file, manifest, expected, found)


def _recorded(path: Path) -> Iterator[tuple[Path, str, Path]]:
    """Yield each file of an artefact with its recorded hash and the manifest that holds it."""
    for owner in (path, *path.parents):
        if manifest := Manifest.read(owner):
            if owner == path and not path.is_dir():
                yield path, manifest.content, manifest_path(path)
            for name, expected in manifest.files.items():
                if (file := owner / name).is_relative_to(path):
                    yield file, expected, manifest_path(owner)
            return
