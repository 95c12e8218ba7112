"""Shorten jsonargparse's error messages to one line: what is wrong, where, and the most similar known key."""

import difflib
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.moved import current_config, short_path, similar_path
from guardreasoner.workflow.config import config_files, resolve

_UNKNOWN = (
    re.compile(r"unrecognized arguments: (?:--)?(?P<key>[^\s=]+)"),
    re.compile(r"Option '(?P<key>[^']+)' is not accepted"),
    re.compile(r"Key '(?P<key>[^']+)' is not expected"),
    re.compile(r"does not accept (?:option|nested key) '(?P<key>[^']+)'"),
)
_NOT_USABLE = re.compile(r"(?:Problem with given class_path '|Expected a path but )(\w+(?:\.\w+)+)")
_NOT_CALLABLE = re.compile(
    r"(?:expects a function or a callable class: .*Got value|Expected a dot import path string): (\w+(?:\.\w+)*)$"
)
_TELLING = (
    *("No such file", "Unable to", "Problem with given class_path", "Expected", "Required", "required", "invalid"),
    "expects a function",
)


def accept_old_names() -> None:
    """Make jsonargparse accept old names of keys and classes in YAML, as ``workflow.config.resolve`` does.

    Flags must be passed through :func:`guardreasoner.moved.current_argv`.
    """
    from jsonargparse import get_loader, set_loader
    from yaml import YAMLError

    set_loader("omegaconf+", lambda text: current_config(get_loader("yaml")(text)), (YAMLError,))


def find_input_error(error: BaseException | None) -> InputError | None:
    """Return the ``InputError`` that a parser error was raised from; jsonargparse wraps what constructors raise."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def config_error(message: str, parser: Any, argv: Sequence[str]) -> InputError:
    """Return a one-line error for a message of jsonargparse.

    Args:
        message: the message, of many lines.
        parser: the parser, which lists the known keys.
        argv: verb and flags.
    """
    for pattern in _UNKNOWN:
        if match := pattern.search(message):
            return _unknown_key(match["key"], parser, argv)
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    key = re.search(r'(?:Parser key|Key) "([^"]+)"', message)
    inner = re.findall(r'Parser key "([^"]+)"', message)
    plain = [line for line in lines if not line.startswith("Given value")]
    telling = [line for word in _TELLING for line in plain if word in line and "NoneType" not in line]
    what = (telling[-1] if telling else plain[-1]).rstrip(":")
    name = ".".join(dict.fromkeys([*([key[1]] if key else []), *inner]))
    if path := _NOT_USABLE.search(what) or _NOT_CALLABLE.search(what):
        return InputError(f"{name}: {_import_problem(path[1])}", _similar(path[1]))
    if "Problem with given class_path" in what:
        index = lines.index(what) if what in lines else -1
        what = f"{what}: {lines[index + 1]}" if 0 <= index < len(lines) - 1 else what
    value = next((line for line in lines if line.startswith("Given value: ") and "{" not in line), "")
    parts = [part for part in (name, what, value.removeprefix("Given value: ") and f"got {value[13:]}") if part]
    return InputError(": ".join(parts))


def _import_problem(path: str) -> str:
    """Return why the object of a dotted path cannot be used as a value."""
    module, _, name = path.rpartition(".")
    if not module:
        return f"cannot import {path}: expected a dotted path"
    try:
        imported = import_module(module)
    except Exception as error:  # a module may raise anything while it is imported
        return f"cannot import {path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return (
        f"{path} is of the wrong type" if hasattr(imported, name) else f"cannot import {path}: {module} has no {name}"
    )


def _similar(path: str) -> str | None:
    is_ours = path.startswith("guardreasoner.") or "." not in path
    near = similar_path(path) if is_ours else None
    return f"did you mean {near}?" if near and near not in (path, short_path(path)) else None


def _unknown_key(key: str, parser: Any, argv: Sequence[str]) -> InputError:
    known = {part for key in _known_keys(parser, argv) for part in key.split(".")} | {"class_path", "init_args"}
    parts = key.split(".")
    name = next((part for part in parts if part not in known), parts[-1])
    near = difflib.get_close_matches(name, sorted(known - {name}), n=1, cutoff=0.6)
    return InputError(f"{_where(name, key, argv)}unknown key {key!r}", f"did you mean {near[0]!r}?" if near else None)


def _where(name: str, key: str, argv: Sequence[str]) -> str:
    """Return "file:line: " of the config file that contains a key, or "" if the key was a flag."""
    if any(word.startswith("--") and word.split("=")[0].endswith(key) for word in argv):
        return ""
    for path in reversed(config_files(argv)):
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
            if re.search(rf"(^|[\s{{,'\"]){re.escape(name)}['\"]?\s*:", line.partition("#")[0]):
                return f"{path}:{number}: "
    return ""


def _known_keys(parser: Any, argv: Sequence[str]) -> Iterator[str]:
    yield from (action.dest for action in parser._actions if isinstance(action.dest, str))
    try:
        config = resolve(argv).config
    except InputError:
        return
    yield from _parameters_below(config)


def _parameters_below(value: Any) -> Iterator[str]:
    """Yield the parameters of all classes named in a config, and of this package's classes in their type hints."""
    if isinstance(value, dict):
        if isinstance(path := value.get("class_path"), str):
            module, _, name = path.rpartition(".")
            yield from _parameters(getattr(sys.modules.get(module), name, None), set())
        for inner in value.values():
            yield from _parameters_below(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parameters_below(inner)


def _parameters(cls: Any, seen: set[Any]) -> Iterator[str]:
    if not inspect.isclass(cls) or cls in seen:
        return
    seen.add(cls)
    hints = typing.get_type_hints(cls.__init__)
    for name in inspect.signature(cls.__init__).parameters:
        yield name
        for inner in (hints.get(name), *typing.get_args(hints.get(name))):
            if inspect.isclass(inner) and inner.__module__.startswith("guardreasoner."):
                yield from _parameters(inner, seen)
