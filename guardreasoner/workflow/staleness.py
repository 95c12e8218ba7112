"""Decide whether a command's output is up to date: compare its manifest with the current config and inputs."""

import glob
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.moved import current_config, ignore
from guardreasoner.records.atomic_file import replacing_file
from guardreasoner.workflow.config import Command, Config
from guardreasoner.workflow.manifest import (
    Manifest,
    code_hash,
    content_hash,
    fingerprint,
    is_users_code,
    manifest_path,
)
from guardreasoner.workflow.redaction import command_without_secrets, without_secrets

# The recipe acts where its values are used; the other keys say where results are stored, not what they are.
_NEVER_INPUTS = {
    "output",
    "cache",
    "quarantine",
    "reference",
    "auto_build",
    "recipe",
    "logger",
    "default_root_dir",
    "dirpath",
    "save_dir",
    "class_path",
}
_PATH_KEYS = {"rollouts", "pairs", "optimizer_state", "from", "policies"}
_FILE_KEYS = {"train", "validation", "test"}
_TEXT_FILES = (".txt", ".md")
"""Endings by which a ``policy`` is the path of a text file, as :mod:`guardreasoner.sources.policy_files` reads it."""

_PATH_WORDS = {"path", "file", "folder", "dir", "directory", "paths", "files", "folders", "dirs", "directories"}
_NO_EFFECT = {"output", "overwrite", "auto_build", "recipe", "checkpoint_every"}
_PRETRAINED = {"output", "from", "sha256", "chat_template", "tasks"}
"""Keys that a pretrained base model depends on."""
_NO_EFFECT_IN_TRAINER = {
    *("logger", "default_root_dir", "fast_dev_run", "log_every_n_steps", "profiler", "max_time"),
    *("enable_progress_bar", "enable_model_summary"),
}


@dataclass(frozen=True)
class StageState:
    """The current state of a command's config and inputs.

    Args:
        command: the command.
        fingerprint: hash of the verb, of the config keys that affect the result, of the inputs and of the user's code.
        inputs: content hash of each input, by path as written in the config.
        code: hash of the code of each of the user's classes and functions (:func:`imported_code`).
    """

    command: Command
    fingerprint: str
    inputs: dict[str, str]
    code: dict[str, str]

    @classmethod
    def of(cls, command: Command) -> "StageState":
        """Hash the inputs of a command.

        Raises:
            InputError: an input cannot be read.
        """
        inputs = {path: content_hash(path) for path in sorted(set(_inputs(command)))}
        code = imported_code(effective_config(command.verb, command.config))
        return cls(command, _fingerprint(command.verb, command.config, inputs, code), inputs, code)

    def matches(self, manifest: Manifest) -> bool:
        """Return whether a manifest has the same verb, config, inputs and code; its names may be old ones."""
        # An old manifest has no code, and a module may not be found from here.
        code = {name: self.code.get(name, hashed) for name, hashed in manifest.code.items()}
        if manifest.fingerprint == _fingerprint(self.command.verb, self.command.config, self.inputs, code):
            return True
        config = current_config(manifest.config, warn=ignore)
        if not manifest.command:
            return False
        inputs = {path: hashed for path, hashed in manifest.inputs.items() if not _was_guessed(path, config)}
        if config == manifest.config and inputs == manifest.inputs:
            return False
        # The config in a manifest has no secrets.
        now = _fingerprint(self.command.verb, without_secrets(self.command.config), self.inputs, code)
        return _fingerprint(manifest.command[0], config, inputs, manifest.code) == now

    def begin(self) -> None:
        """Write a mark beside the output, which distinguishes an unfinished output from the user's own files."""
        if self.command.output is not None:
            mark = mark_of(self.command.output)
            exists = self.command.output.exists() and not mark.exists()
            before = content_hash(self.command.output) if exists else ""
            command = shlex.join(command_without_secrets(self.command.argv))
            with replacing_file(mark) as partial:
                partial.write_text(f"{command}\n{before}\n", encoding="utf-8")

    def finish(self) -> None:
        """Write the manifest of the output, if there is one, and remove the mark."""
        output = self.command.output
        if output is not None:
            if output.exists():
                allowed = bool(self.command.config.get("allow_contamination"))
                manifest = Manifest.describe(
                    output,
                    self.command.argv,
                    self.fingerprint,
                    self.inputs,
                    allowed,
                    self.command.config,
                    origins(self.command),
                    self.code,
                )
                manifest.write(output)
            mark_of(output).unlink(missing_ok=True)

    def give_up(self) -> None:
        """Remove the mark if there is nothing to resume: no output, or the output from before, unchanged."""
        output = self.command.output
        if output is None:
            return
        mark = mark_of(output)
        before = mark.read_text(encoding="utf-8").splitlines()[-1] if mark.exists() else ""
        if not output.exists() or before == content_hash(output):
            mark.unlink(missing_ok=True)


def status(command: Command) -> str | None:
    """Return why a command's output is out of date, in a few words; None if it is up to date.

    Raises:
        InputError: the command has no output, or an input cannot be read.
    """
    output = _output(command)
    if not output.exists():
        return "missing"
    manifest = Manifest.read(output)
    changed = manifest is None or content_hash(output) != manifest.content
    if changed and mark_of(output).exists():
        return "unfinished"
    if manifest is None:
        return "no manifest"
    now = StageState.of(command)
    if not now.matches(manifest):
        differing = [
            f"input {path}" for path, hashed in now.inputs.items() if manifest.inputs.get(path, hashed) != hashed
        ]
        differing += [
            f"code of {name}" for name, hashed in now.code.items() if manifest.code.get(name, hashed) != hashed
        ]
        return f"{differing[0] if differing else 'config'} changed"
    return "output was changed by hand" if changed else None


def made_by_another(command: Command) -> bool:
    """Return whether a command's output is the complete and different result of another command."""
    manifest = Manifest.read(_output(command)) if _output(command).exists() else None
    if manifest is None or manifest.made_by(command.argv):
        return False
    return content_hash(_output(command)) == manifest.content and status(command) is not None


def keep_if_not_ours(command: Command) -> Path | None:
    """Move a command's output to ``OUTPUT.previous`` unless the same command made it; return the new path.

    An output that was made with other flags, or changed since, may be needed. An unfinished output stays in place, so
    that the command can resume.
    """
    output = _output(command)
    if not output.exists():
        return None
    manifest = Manifest.read(output)
    unchanged = manifest is not None and content_hash(output) == manifest.content
    if manifest.made_by(command.argv) if manifest and unchanged else mark_of(output).exists():
        return None
    kept, number = output.with_name(f"{output.name}.previous"), 1
    while kept.exists():
        number += 1
        kept = output.with_name(f"{output.name}.previous-{number}")
    beside = manifest_path(output)
    output.rename(kept)
    if beside.exists():
        beside.rename(manifest_path(kept))
    return kept


def origins(command: Command) -> list[dict[str, Any]]:
    """Return the inputs of a command that are not files, in the form of ``Manifest.origins``."""
    result: list[dict[str, Any]] = []
    config = _without_unused(command.verb, command.config)
    for source in _sources(config.get("data")):
        arguments = source.get("init_args") or {}
        # A source that reads files is identified by them.
        if not any(existing(text) for _, text in path_values(arguments)):
            path = str(source["class_path"])
            result.append({"class_path": path, "init_args": arguments, "code": code_hash(path)})
    result += [{"hub": text} for text in backbone_paths(config) if not os.path.exists(text)]
    if (model := config.get("from")) and not os.path.exists(str(model)):
        result.append({"hub" if "/" in str(model) else "package": str(model)})
    return [origin for index, origin in enumerate(result) if origin not in result[:index]]


def imported_code(config: Any) -> dict[str, str]:
    """Return the hash of the code of each of the user's classes and functions that a config names."""
    names = {text for text in _values(config) if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", text)}
    own = (name for name in sorted(names) if not os.path.exists(name) and is_users_code(name))
    return {name: hashed for name in own if (hashed := code_hash(name))}


def backbone_paths(config: Any) -> Iterator[str]:
    """Yield the folder or hub id of each model that a config loads as ``backbone``."""
    for key, text in path_values(config):
        if re.search(r"\bbackbone\.(init_args\.)?path$", key):
            yield text


def path_values(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) for each text of a config whose key says that it is the path of an input.

    A key says so if one of its words (between ``_``) is path, file, folder, dir or directory, or the plural of one, or
    if it is ``rollouts``, ``pairs``, ``optimizer_state``, ``from`` or ``policies``. ``train``, ``validation`` and
    ``test`` do if the text has a suffix or is a pattern, since they also name data sets, and ``policy`` does if the
    text is one line that ends in .txt or .md. An argument of a user-defined class, or an element of a list, counts too,
    whatever its key, if it has a suffix and names an existing file.

    Args:
        config: a config, or the part of one below ``key``.
        key: dotted key of that part.
    """
    if isinstance(config, dict):
        is_foreign = not str(config.get("class_path", "guardreasoner.")).startswith("guardreasoner.")
        for name, inner in config.items():
            if name in _NEVER_INPUTS:
                continue
            if is_foreign and name == "init_args":
                yield from _existing_files(inner, f"{key}.{name}")
            yield from path_values(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list):
        for inner in config:
            yield from path_values(inner, key)
    elif isinstance(config, str) and config and "\0" not in config and _is_path(key.rpartition(".")[2], config):
        yield key, config


def _was_guessed(path: str, config: Any) -> bool:
    """Return whether an input in an old manifest is a value such as ``accelerator: auto`` that is the name of a folder.

    Every value of a config that happened to exist as a path used to count as an input.
    """
    is_value = path in set(_values(config)) and not Path(path).suffix
    return is_value and path not in {text for _, text in path_values(config)}


def _values(config: Any) -> Iterator[str]:
    """Yield every text of a config."""
    if isinstance(config, dict | list):
        for inner in config.values() if isinstance(config, dict) else config:
            yield from _values(inner)
    elif isinstance(config, str):
        yield config


def _existing_files(arguments: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the arguments of a user's class that name an existing file, also in a list, whatever their key."""
    if isinstance(arguments, dict):
        for name, value in arguments.items():
            for text in value if isinstance(value, list) else [value]:
                is_file = isinstance(text, str) and Path(text).suffix and "\0" not in text and os.path.isfile(text)
                if is_file and not _is_path(str(name), text):
                    yield f"{key}.{name}", text


def _is_path(name: str, text: str) -> bool:
    if name in _FILE_KEYS:
        return bool(Path(text).suffix) or glob.has_magic(text)
    if name == "policy":
        return len(text.strip().splitlines()) == 1 and text.strip().lower().endswith(_TEXT_FILES)
    return name in _PATH_KEYS or not _PATH_WORDS.isdisjoint(name.split("_"))


def existing(text: str) -> list[str]:
    """Return the text if it is an existing path, also one in a home folder (``~``), else the paths that match it."""
    if not os.path.exists(text):
        text = os.path.expanduser(text)
    if os.path.exists(text):
        return [text]
    return sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) and "\n" not in text else []


def mark_of(output: Path) -> Path:
    """Return the mark of an output: a file beside it while the command that writes it is unfinished."""
    return output.with_name(f".{output.name}.unfinished")


def full(path: str | Path) -> Path:
    """Return an absolute path without ``..``; links are not followed."""
    return Path(os.path.abspath(path))


def command_line(command: Command) -> str:
    """Return a command as typed in a shell."""
    return shlex.join(["python", "-m", "guardreasoner", *command.argv])


def effective_config(verb: str, config: Config) -> Config:
    """Return the part of a config that affects the result."""
    config = {key: value for key, value in _without_unused(verb, config).items() if key not in _NO_EFFECT}
    if verb == "fit":
        # A run that resumes from a checkpoint ends with the same model as an uninterrupted one.
        config.pop("ckpt_path", None)
    if isinstance(trainer := config.get("trainer"), dict):
        config["trainer"] = {key: value for key, value in trainer.items() if key not in _NO_EFFECT_IN_TRAINER}
    return config


def _without_unused(verb: str, config: Config) -> Config:
    """Return a config without the keys that its verb does not read.

    Overlays for all stages have a model and a trainer, which a base model does not depend on. A pretrained base model
    depends on a few keys only.
    """
    if verb != "base-model":
        return config
    if config.get("from") is not None:
        return {key: value for key, value in config.items() if key in _PRETRAINED}
    return {key: value for key, value in config.items() if key not in ("model", "trainer")}


def _fingerprint(verb: str, config: Config, inputs: Mapping[str, str], code: Mapping[str, str]) -> str:
    content = {"verb": verb, "config": effective_config(verb, config), "inputs": inputs}
    return fingerprint(content | ({"code": code} if code else {}))


def _inputs(command: Command) -> Iterator[str]:
    """Yield the existing files and folders that a config names, except the command's own output and its parents."""
    own = full(command.output) if command.output else None
    for _, text in path_values(_without_unused(command.verb, command.config)):
        for found in existing(text):
            path = full(found)
            if own is None or not (path.is_relative_to(own) or own.is_relative_to(path)):
                yield found


def _sources(owner: Any) -> Iterator[dict[str, Any]]:
    """Yield the data sources among the arguments of a class; a source that combines others yields those instead."""
    arguments = owner.get("init_args") if isinstance(owner, dict) else None
    given = arguments if isinstance(arguments, dict) else {}
    for value in (given.get(name) for name in ("source", "sources", "benchmarks")):
        for element in value if isinstance(value, list) else [value]:
            source = {"class_path": element} if isinstance(element, str) else element
            if isinstance(source, dict) and source.get("class_path"):
                yield from list(_sources(source)) or [source]


def _output(command: Command) -> Path:
    if command.output is None:
        raise InputError(f"{command_line(command)}: its config has no `output`")
    return command.output
