"""Shorten jsonargparse's error messages to one line: what is wrong, where, and the most similar known key."""

import difflib
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.moved import current_config, short_path, similar_path
from guardreasoner.workflow.config import config_files, flags, locate, resolve
from guardreasoner.workflow.config_file import find_config
from guardreasoner.workflow.strict_yaml import parse_yaml

_UNKNOWN = (
    re.compile(r"unrecognized arguments: (?:--)?(?P<key>[^\s=]+)"),
    re.compile(r"Option '(?P<key>[^']+)' is not accepted"),
    re.compile(r"Key '(?P<key>[^']+)' is not expected"),
    re.compile(r"does not accept (?:option|nested key) '(?P<key>[^']+)'"),
)
_NOT_USABLE = re.compile(r"(?:Problem with given class_path '|Expected a path but )(\w+(?:\.\w+)*)")
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
    from jsonargparse import set_loader
    from yaml import YAMLError

    set_loader("omegaconf+", lambda text: current_config(parse_yaml(text)), (YAMLError,))


def find_input_error(error: BaseException | None) -> InputError | None:
    """Return the ``InputError`` that a parser error was raised from; jsonargparse wraps what constructors raise."""
    seen = set[int]()  # causes may form a cycle
    while error is not None and not isinstance(error, InputError) and id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return error if isinstance(error, InputError) else None


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
    plain = [line for line in lines if not line.startswith("Given value")]
    telling = [line for word in _TELLING for line in plain if word in line and "NoneType" not in line]
    what = (telling[-1] if telling else plain[-1]).rstrip(":")
    key = _key(message)
    place = f"{locate(argv, key)}{key}: " if key else ""
    if path := _NOT_USABLE.search(what) or _NOT_CALLABLE.search(what):
        return InputError(f"{place}{_import_problem(path[1])}", _similar(path[1]))
    if "NoneType" in what and (word := _given_word(message)):
        return InputError(f"{place}{_import_problem(word)}", _similar(word))
    if "Problem with given class_path" in what:
        index = lines.index(what) if what in lines else -1
        what = f"{what}: {lines[index + 1]}" if 0 <= index < len(lines) - 1 else what
    what, _, got = what.partition(". Got value: ")
    given = next((line[13:] for line in lines if line.startswith("Given value: ")), "")
    value = got or ("" if "{" in given or given.startswith("NestedArg") else given)
    if expected := _expected(what, plain):
        return InputError(f"{place}expected {expected}" + (f", got {value}" if value else ""))
    return InputError(f"{place}{what}" + (f": got {value}" if value else ""))


def _key(message: str) -> str:
    """Return the dotted key of an error: that of the innermost parser, after those of the parsers around it."""
    outer = re.search(r'(?:Parser key|Key) "([^"]+)"', message)
    inner = re.findall(r'Parser key "([^"]+)"', message)
    parts = list(dict.fromkeys([*([outer[1]] if outer else []), *inner]))
    if nested := re.findall(r"NestedArg\(key='([^']+)'", message):
        # The flag's own key, of which an inner parser knows the end.
        parts = [parts[0], nested[-1]] if parts else [nested[-1]]
    return ".".join(parts)


def _given_word(message: str) -> str | None:
    """Return the value of a key that no alternative of its type accepts, if it could be a dotted path."""
    given = re.findall(
        r"NestedArg\(key='[^']+', val='(\w+(?:\.\w+)*)'\)|^\s*Given value: (\w+(?:\.\w+)*)$", message, re.M
    )
    return (given[-1][0] or given[-1][1]) if given else None


_TYPE_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "NoneType": "null",
}


def _expected(what: str, lines: Sequence[str]) -> str | None:
    """Return in plain words what jsonargparse expected; None if the message is about something else."""
    if not what.startswith("Expected a "):
        return None
    kinds = [line.partition(". Got value: ")[0] for line in lines if line.startswith("Expected a ")]
    words = [word for word in map(_type_words, kinds) if word]
    allowed = list(dict.fromkeys(words))
    if not allowed or allowed == ["null"]:
        return None
    return " or ".join([*(word for word in allowed if word != "null"), *(word for word in allowed if word == "null")])


def _type_words(expected: str) -> str | None:
    if kind := re.search(r"<class '(\w+)'>", expected):
        return _TYPE_WORDS.get(kind[1])
    if literal := re.search(r"typing\.Literal\[(.*)\]", expected):
        words = literal[1].replace("'", "").split(", ")
        return f"one of {', '.join(words)}" if len(words) > 1 else words[0]
    return None


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
    """Return "--flag: ", or "file:line: " of the config file, that contains a key."""
    for flag, _ in flags(argv):
        if flag.endswith(key):
            return f"--{flag}: " if flag != key else ""
    for path in reversed(config_files(argv)):
        for number, line in enumerate(find_config(path).read_text(encoding="utf-8-sig").splitlines(), start=1):
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
