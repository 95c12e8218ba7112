"""Merge the YAML files and flags of a command into one config, without importing torch.

The merge follows the rules of the Lightning command line (jsonargparse, parser mode "omegaconf+"), so that the config
of a stage is known before the stage is started. Where a file or flag changes a ``class_path``, arguments of the former
class stay; the command line, which imports the classes, drops those that the new class does not accept.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from guardreasoner.errors import InputError
from guardreasoner.moved import current_argv, current_config
from guardreasoner.workflow.config_file import config_name, find_config, load_yaml
from guardreasoner.workflow.recipe import Recipe
from guardreasoner.workflow.redaction import remember_secrets
from guardreasoner.workflow.strict_yaml import line_of, parse_yaml

Config = dict[str, Any]

_INTERPOLATION = re.compile(r"\$\{(?:[^{}]|\$\{[^{}]*\})*\}")
_HIDDEN = re.compile("\ue000(\\d+)\ue000")
"""What stands for an interpolation while YAML is read: private characters around its number."""


@dataclass(frozen=True)
class Command:
    """A command line and its config.

    Args:
        argv: the arguments after ``python -m guardreasoner``, the verb first.
        config: the merged and interpolated config.
    """

    argv: tuple[str, ...]
    config: Config

    @property
    def verb(self) -> str:
        """First argument of the command, such as ``fit``."""
        return self.argv[0]

    @property
    def output(self) -> Path | None:
        """The file or folder that the command writes: the config's ``output``; None if it has none."""
        output = self.config.get("output")
        return Path(output) if isinstance(output, str) and output else None


def resolve(argv: Sequence[str]) -> Command:
    """Merge the recipe's defaults with the files and flags of a command, from left to right, then resolve ``${…}``.

    Mappings are merged, other values replaced; ``key+`` appends to a list; a flag may leave out ``init_args``. Old
    names are replaced by current ones, and public names of classes by full paths. Secrets in the config are remembered
    for :func:`guardreasoner.workflow.redaction.redacted`.

    Args:
        argv: verb and flags.

    Raises:
        InputError: a file is missing, is not valid YAML or has a key twice, a path in the recipe is empty, or an
            interpolation cannot be resolved.
    """
    argv = current_argv(argv)
    config: Config = {"recipe": asdict(Recipe())}
    for name, value in flags(argv):
        merge_flag(config, name, value)
    _require_paths(config["recipe"], argv)
    resolved = _interpolate(config, " ".join(argv))
    remember_secrets(resolved)
    return Command(tuple(argv), resolved)


def _require_paths(recipe: Any, argv: Sequence[str]) -> None:
    """Refuse an empty path or name in the recipe, such as that of an unset shell variable, which becomes "None"."""
    for key, default in asdict(Recipe()).items():
        if isinstance(default, str) and isinstance(recipe, dict) and recipe.get(key) in (None, ""):
            raise InputError(f"{locate(argv, f'recipe.{key}')}recipe.{key}: is empty; its default is {default}")


def merge_flag(config: Config, name: str, value: str | None) -> None:
    """Merge a flag, or the file that ``config`` names, into a config.

    Args:
        config: the config, which is changed.
        name: dotted key of the flag, or ``config``.
        value: text of the flag; None means true.

    Raises:
        InputError: a file is missing or not valid.
    """
    if name == "config":
        _merge(config, load_yaml(value))
    else:
        keys = name.split(".")
        _assign(config, keys, True if value is None else current_config(_flag_value(name, value), keys[-1]))


def flags(argv: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield (name without dashes, value or None) for each flag of a command, in order; ``-c`` yields ``config``."""
    words = [*argv[1:], "--"]
    for index, word in enumerate(words[:-1]):
        if word == "-c" or (word.startswith("--") and len(word) > 2):
            name, equals, value = word.lstrip("-").partition("=")
            following = None if words[index + 1].startswith("--") else words[index + 1]
            yield ("config" if name == "c" else name), value if equals else following


def config_files(argv: Sequence[str]) -> list[str]:
    """Return the files that a command passes with ``--config``, in order."""
    return [value for name, value in flags(argv) if name == "config"]


def with_config_names(argv: Sequence[str]) -> list[str]:
    """Return a command line whose ``--config`` values are the paths that the configs are known by."""
    return _map_configs(argv, config_name)


def with_config_files(argv: Sequence[str]) -> list[str]:
    """Return a command line whose ``--config`` values are existing files, for a parser that opens them.

    Raises:
        InputError: there is no such config.
    """
    return _map_configs(argv, lambda given: str(find_config(given)))


def locate(argv: Sequence[str], key: str) -> str:
    """Return "file:line: " of the config file that sets a key, or "" if a flag or no file sets it.

    Args:
        argv: verb and flags.
        key: dotted key; ``init_args`` may be left out.
    """
    wanted = [part for part in key.split(".") if part != "init_args"]
    if any([part for part in name.rstrip("+").split(".") if part != "init_args"] == wanted for name, _ in flags(argv)):
        return ""
    for path in reversed(config_files(argv)):
        if line := line_of(find_config(path).read_text(encoding="utf-8-sig"), wanted):
            return f"{path}:{line}: "
    return ""


def _map_configs(argv: Sequence[str], change: Callable[[str], str]) -> list[str]:
    changed, previous = [], ""
    for index, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if index and previous in ("-c", "--config") and not word.startswith("--"):
            word = change(word)
        elif index and equals and name in ("-c", "--config"):
            word = f"{name}={change(value)}"
        changed.append(word)
        previous = word
    return changed


def _flag_value(name: str, text: str) -> Any:
    if name in ("model", "data", "trainer") and text.endswith((".yaml", ".yml")) and os.path.isfile(text):
        return load_yaml(text)
    hidden: list[str] = []

    def hide(found: re.Match[str]) -> str:
        hidden.append(found[0])
        return f"\ue000{len(hidden) - 1}\ue000"

    try:
        if "${" in text and text.lstrip()[:1] in ("[", "{"):  # YAML would end an element of the list at the brace
            return _restore(parse_yaml(_INTERPOLATION.sub(hide, text)), hidden)
        return parse_yaml(text)
    except yaml.YAMLError:
        return text


def _restore(value: Any, hidden: Sequence[str]) -> Any:
    """Put interpolations back into the texts of a parsed value."""
    if isinstance(value, dict):
        return {_restore(key, hidden): _restore(inner, hidden) for key, inner in value.items()}
    if isinstance(value, list):
        return [_restore(inner, hidden) for inner in value]
    if isinstance(value, str):
        return _HIDDEN.sub(lambda found: hidden[int(found[1])], value)
    return value


def _merge(config: Config, more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        _assign(config, str(key).split(".") if "." in str(key) else [key], value)


def _assign(node: Config, keys: list[Any], value: Any) -> None:
    """Set the value at a path of keys, descending into ``init_args`` and into the last element of a list."""
    key, rest = keys[0], keys[1:]
    if "class_path" in node and key not in ("class_path", "init_args", "dict_kwargs"):
        node, key, rest = node.setdefault("init_args", {}), key, rest
    append = isinstance(key, str) and key.endswith("+")
    key = key[:-1] if append else key
    old = node.get(key)
    if rest:
        while isinstance(old, list) and old:
            if isinstance(old[-1], str):
                old[-1] = {"class_path": old[-1]}
            old = old[-1]
        if not isinstance(old, dict):
            old = node[key] = {"class_path": old} if isinstance(old, str) else {}
        _assign(old, rest, value)
    elif append:
        node[key] = [*(old or []), *(value if isinstance(value, list) else [value])]
    elif isinstance(value, Mapping) and key not in _REPLACED:
        if not isinstance(old, dict):
            old = node[key] = {}
        _merge(old, value)
    elif isinstance(old, dict) and "class_path" in old and isinstance(value, str):
        old["class_path"] = value
    else:
        node[key] = value


_REPLACED = {"sources_by_model"}
"""Mappings whose keys are the user's own names: jsonargparse replaces instead of merging them."""


def _interpolate(config: Config, where: str) -> Config:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        resolved = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise InputError(f"{where}: {key}{str(error).splitlines()[0]}") from None
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}
