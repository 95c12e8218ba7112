"""Refuse, before anything is built, an output that must not be replaced or a folder that cannot be written."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.workflow.config import Command
from guardreasoner.workflow.manifest import MANIFEST, Manifest
from guardreasoner.workflow.staleness import existing, full, mark_of, path_values

_MINIMUM = 16 << 20
"""Bytes that must be free wherever a command writes."""

_WRITTEN = {"cache", "quarantine", "default_root_dir", "dirpath", "save_dir"}
"""Config keys of folders that a run writes to beside its output; so is ``folder`` of the reference."""

_WRITTEN_BY_TEACHER = "model.init_args.folder"
"""Config key of the folder of a teacher's answers, which is its output."""

_OF_AN_ARTEFACT = {MANIFEST, "config.json", "adapter_config.json"}
"""Files that every artefact of this project or model folder has, at least one of them."""


def require_replaceable(command: Command) -> None:
    """Check that a command may replace what lies at its output.

    It may if there is nothing, an empty folder, or what an earlier run of the same verb made. Anything else needs
    ``overwrite``. Never replaced are links, mount points, inputs of the command, folders around other artefacts, and
    the working folder, the home folder and those around them.

    Raises:
        InputError: the output must not be replaced.
    """
    output = command.output
    if output is None:
        return
    if fault := _never_replaced(command, output):
        raise InputError(f"output: {output} {fault}", "name a new folder")
    if command.config.get("overwrite") or not os.path.lexists(output) or mark_of(output).exists():
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    manifest = Manifest.read(output)
    made_by = manifest.command[0] if manifest and manifest.command else None
    if made_by != command.verb:
        what = f"was made by `{made_by}`" if made_by else "was not made by this project, or its manifest is missing"
        raise InputError(
            f"output: {output} {what}; `{command.verb}` would replace it",
            "name another output, or replace it with --overwrite",
        )


def require_writable(command: Command) -> None:
    """Check that every folder that a command writes to can be written and has free space.

    Raises:
        InputError: a folder cannot be written, or its disk is full.
    """
    for key, folder in _written_folders(command):
        place = folder
        while not os.path.lexists(place):
            place = place.parent
        try:
            with tempfile.TemporaryFile(dir=place) as probe:
                probe.write(bytes(1 << 12))
                os.fsync(probe.fileno())
            free = shutil.disk_usage(place).free
        except OSError as error:
            reason = "Not a directory" if place.exists() and not place.is_dir() else error.strerror
            raise InputError(f"{key}: {place} cannot be written: {reason}") from None
        if free < _MINIMUM:
            raise InputError(
                f"{key}: {folder} has {free / 2**20:.1f} MiB of free space, at least {_MINIMUM >> 20} MiB are needed"
            )


def _never_replaced(command: Command, output: Path) -> str | None:
    """Return why an output must never be replaced, None if it may be."""
    if output.parts[:1] and output.parts[0].startswith("~"):
        return "starts with ~, which only a shell replaces by the home folder"
    if output.is_symlink():
        return f"is a link to {os.readlink(output)}, which would be replaced by a folder"
    place = output.resolve()
    for name, folder in (("working folder", Path.cwd()), ("home folder", Path.home())):
        if folder.resolve().is_relative_to(place):
            return f"is the {name}" if folder.resolve() == place else f"is around the {name}"
    if os.path.ismount(output):
        return "is a mount point, which cannot be replaced"
    for key, text in path_values(command.config):
        for path in existing(text) if key != _WRITTEN_BY_TEACHER else ():
            if Path(path).resolve().is_relative_to(place):
                return f"is also read by this command ({key})"
    if other := next(_artefacts_below(output), None):
        return f"holds other artefacts, such as {other}, which would be removed"
    return None


def _artefacts_below(output: Path) -> Iterator[Path]:
    """Yield the artefacts, or unfinished ones, in the subfolders of an output."""
    for folder, folders, names in os.walk(output):
        if Path(folder) != output and not _OF_AN_ARTEFACT.isdisjoint(names):
            yield Path(folder)
        yield from (Path(folder, name) for name in folders if name.startswith(".") and name.endswith(".partial"))
        if Path(folder) != output:
            yield from (Path(folder, name) for name in names if name.endswith((".safetensors", f".{MANIFEST}")))


def _written_folders(command: Command) -> Iterator[tuple[str, Path]]:
    """Yield (config key, folder) of everything that a command writes; the folder need not exist."""
    if command.output is not None:
        yield "output", full(command.output).parent
    yield from _written_below(command.config)


def _written_below(config: Any, key: str = "") -> Iterator[tuple[str, Path]]:
    if isinstance(config, dict):
        for name, inner in config.items():
            inner_key = f"{key}.{name}" if key else str(name)
            is_reference = name == "folder" and ".reference." in inner_key
            if isinstance(inner, str) and inner and (name in _WRITTEN or is_reference) and "://" not in inner:
                yield inner_key.replace(".init_args", ""), full(inner)
            yield from _written_below(inner, inner_key)
    elif isinstance(config, list):
        for inner in config:
            yield from _written_below(inner, key)
