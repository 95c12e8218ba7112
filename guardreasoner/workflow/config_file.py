"""Find and read a config file: the user's own, or one that comes with the package."""

import difflib
import os
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from guardreasoner.errors import InputError
from guardreasoner.moved import current_config, warn_once
from guardreasoner.workflow.strict_yaml import parse_yaml

SHIPPED = Path(__file__).parents[1] / "configs"
"""Folder of the configs that come with the package."""


def config_name(given: str) -> str:
    """Return the path that a config is known by: ``configs/hsdpo.yaml`` for ``hsdpo``, if that is no file itself.

    The path may belong to the working folder or to the package; :func:`find_config` looks in both.
    """
    if _is_readable(given) or ".." in Path(given).parts:  # a path, not a name
        return given
    for name in (given, f"{given}.yaml"):
        path = name if name.startswith("configs/") else f"configs/{name}"
        if _is_readable(path) or _shipped(path):
            return path
    return given


def find_config(given: str | Path) -> Path:
    """Return the file of a config: a file of the working folder, or else one that comes with the package.

    Args:
        given: a path, or a name such as ``hsdpo`` or ``model/qlora``.

    Raises:
        InputError: there is no such file.
    """
    path = config_name(str(given))
    if _is_readable(path):
        return Path(path)
    if shipped := _shipped(path):
        return shipped
    if Path(path).is_dir():
        raise InputError(f"--config {given}: expected a file, found a folder")
    names = sorted(file.relative_to(SHIPPED).with_suffix("").as_posix() for file in SHIPPED.rglob("*.yaml"))
    name = str(given).removeprefix("configs/").removesuffix(".yaml")
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"configs that come with the package: {', '.join(names)}"
    raise InputError(f"--config {given}: no such file", hint)


def load_yaml(path: str | Path | None) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        InputError: the file is missing, is not a mapping, or is not valid YAML as ``strict_yaml`` defines it.
    """
    if path is None:
        raise InputError("--config: expected a file name")
    try:
        text = find_config(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read: {error.strerror}") from None
    try:
        value = parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: {error.problem or 'not valid YAML'}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(value, dict | None):
        raise InputError(f"{path}: expected a mapping, found {type(value).__name__}")
    return current_config(value or {}, warn=partial(warn_once, where=f"{path}: "))


def _is_readable(path: str) -> bool:
    """Return whether a path is a file, or a pipe, which a shell passes for ``<(command)``."""
    return "\0" not in path and os.path.exists(path) and not os.path.isdir(path)


def _shipped(path: str) -> Path | None:
    """Return the file of the package for a path below ``configs/``; None if there is none."""
    folder, _, name = path.partition("/")
    file = SHIPPED / name
    return file if folder == "configs" and ".." not in Path(name).parts and _is_readable(str(file)) else None
