"""Formats in files: ``guard.json`` of a model, and ``format.json`` beside the ``tasks.json`` of its outputs.

A file may come from anybody, so it only names classes of this package; no other class is ever imported because of one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.published import PublishedFormat
from guardreasoner.moved import public_names
from guardreasoner.prompts import PromptFormat
from guardreasoner.records.jsonl import parse_json
from guardreasoner.tasks import TASKS_FILE, require_type, write_tasks

OUTPUT_FORMAT = "format.json"
"""File beside outputs with the format that they were written in; absent if it is GuardReasoner's own."""

_PACKAGE = "guardreasoner.formats."


def format_from_json(stored: Any, where: str) -> PromptFormat | PublishedFormat:
    """Return a stored format.

    Args:
        stored: what ``as_json`` returned.
        where: the file, for messages.

    Raises:
        InputError: the value is no stored format, its class is not part of this package, or an option is invalid.
    """
    if not isinstance(stored, Mapping):
        raise InputError(f"{where}: format: expected an object, found {type(stored).__name__}")
    try:
        return PromptFormat.from_json(stored) if "class" not in stored else _published(stored)
    except InputError as error:
        raise InputError(f"{where}: {error}", error.hint) from None


def is_user_defined(stored: Any) -> bool:
    """Return whether a stored format is a class of the user's own, which files never load."""
    name = stored.get("class") if isinstance(stored, Mapping) else None
    return isinstance(name, str) and "." in name


def write_output_format(folder: Path, format: GuardFormat) -> None:
    """Write the tasks of outputs and, unless it is GuardReasoner's own, their format into a folder."""
    write_tasks(folder, format.tasks)
    if not isinstance(format, PromptFormat):
        content = json.dumps(format.as_json(), indent=1, ensure_ascii=False)
        (folder / OUTPUT_FORMAT).write_text(content + "\n", encoding="utf-8")


def read_output_format(*folders: Path) -> GuardFormat | None:
    """Return the format of the outputs in the first folder that says their tasks; None: GuardReasoner's own.

    Raises:
        InputError: the file is not JSON, or its format is unknown or invalid.
    """
    stored = stored_output_format(*folders)
    return None if stored is None else format_from_json(stored, str(_output_file(folders)))


def stored_output_format(*folders: Path) -> dict[str, Any] | None:
    """Return the stored form of the format that :func:`read_output_format` returns, without importing its class.

    Raises:
        InputError: the file is not JSON, or does not name a class.
    """
    path = _output_file(folders)
    if path is None:
        return None
    try:
        stored = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not a format: {error}") from None
    if not isinstance(stored, dict) or not isinstance(stored.get("class"), str):
        raise InputError(f"{path}: not a format: expected an object that names a class")
    return stored


def _output_file(folders: Sequence[Path]) -> Path | None:
    for folder in folders:
        if (folder / OUTPUT_FORMAT).is_file():
            return folder / OUTPUT_FORMAT
        if (folder / TASKS_FILE).is_file():
            return None
    return None


def _published(stored: Mapping[str, Any]) -> PublishedFormat:
    """Return a stored format of another guard."""
    from pydantic import TypeAdapter, ValidationError  # takes long, and GuardReasoner's own format does not need it

    name, options = stored["class"], stored.get("init_args", {})
    module = public_names().get(name, "") if isinstance(name, str) else ""
    if not module.startswith(_PACKAGE):
        shown = repr(name) if isinstance(name, str | int) else f"of a {type(name).__name__}"
        raise InputError(f"the format {shown} is unknown", f"known are {', '.join(_known())}")
    cls: type[PublishedFormat] = getattr(import_module(module), name)
    if not isinstance(options, Mapping) or not set(options) <= {field.name for field in fields(cls)}:  # type: ignore[arg-type]
        raise InputError(f"the options of the format {name} are invalid: {options!r}")
    for option, value in options.items():
        if isinstance(value, str):
            require_type(value, (str,), f"format.{option}")
    try:
        return TypeAdapter(cls).validate_python(dict(options))
    except ValidationError as error:
        option = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"format.{option}: {error.errors()[0]['msg']}") from None


def _known() -> list[str]:
    return sorted(name for name, module in public_names().items() if module.startswith(_PACKAGE))
