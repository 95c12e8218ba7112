"""Says whether what a command makes is up to date: its manifest against its config and inputs as they are now."""

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
from guardreasoner.workflow.config import Command, Config
from guardreasoner.workflow.manifest import Manifest, code_hash, content_hash, fingerprint, manifest_path
from guardreasoner.workflow.redaction import command_without_secrets, without_secrets

# Variables act where they are used; the others say where things go, not what is made.
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
_PATH_KEYS = {"rollouts", "optimizer_state"}
_FILE_KEYS = {"train", "validation", "test"}
_PATH_WORDS = {"path", "file", "folder", "dir", "directory", "paths", "files", "folders", "dirs", "directories"}
_NO_EFFECT = {"output", "auto_build", "recipe"}
_NO_EFFECT_IN_TRAINER = {
    *("logger", "default_root_dir", "fast_dev_run", "log_every_n_steps", "profiler"),
    *("enable_progress_bar", "enable_model_summary"),
}


@dataclass(frozen=True)
class StageState:
    """A command's config and inputs as they are now.

    Args:
        command: the command.
        fingerprint: of its verb, of its config without what changes nothing in the result, and of its inputs.
        inputs: content hash by path, as the config writes it.
    """

    command: Command
    fingerprint: str
    inputs: dict[str, str]

    @classmethod
    def of(cls, command: Command) -> "StageState":
        """Hash what a command reads.

        Raises:
            InputError: an input cannot be read.
        """
        inputs = {path: content_hash(path) for path in sorted(set(_inputs(command)))}
        return cls(command, _fingerprint(command.verb, command.config, inputs), inputs)

    def made(self, manifest: Manifest) -> bool:
        """Return whether a manifest is of this verb, config and inputs; one of 0.1 may use the old names."""
        if manifest.fingerprint == self.fingerprint:
            return True
        config = current_config(manifest.config, warn=ignore)
        if config == manifest.config or not manifest.command:
            return False
        # What is written down holds no secrets.
        now = _fingerprint(self.command.verb, without_secrets(self.command.config), self.inputs)
        return _fingerprint(manifest.command[0], config, manifest.inputs) == now

    def begin(self) -> None:
        """Leave a mark beside the output, by which an unfinished one is told from somebody's own."""
        if self.command.output is not None:
            mark = _mark(self.command.output)
            mark.parent.mkdir(parents=True, exist_ok=True)
            found = content_hash(self.command.output) if self.command.output.exists() and not mark.exists() else ""
            words = shlex.join(command_without_secrets(self.command.argv))
            mark.write_text(f"{words}\n{found}\n", encoding="utf-8")

    def finish(self) -> None:
        """Write the manifest of the output, if there is one, and take the mark away."""
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
                )
                manifest.write(output)
            _mark(output).unlink(missing_ok=True)

    def give_up(self) -> None:
        """Take the mark away when there is nothing to go on with: no output, or what lay there before, untouched."""
        output = self.command.output
        if output is None:
            return
        mark = _mark(output)
        found = mark.read_text(encoding="utf-8").splitlines()[-1] if mark.exists() else ""
        if not output.exists() or found == content_hash(output):
            mark.unlink(missing_ok=True)


def status(command: Command) -> str | None:
    """Return why a command's output is out of date, in a few words; None when it is up to date.

    Raises:
        InputError: the command makes nothing, or an input cannot be read.
    """
    output = _output(command)
    if not output.exists():
        return "missing"
    manifest = Manifest.read(output)
    changed = manifest is None or content_hash(output) != manifest.content
    if changed and _mark(output).exists():
        return "unfinished"
    if manifest is None:
        return "nothing says what made it"
    now = StageState.of(command)
    if not now.made(manifest):
        differing = [path for path, hashed in now.inputs.items() if manifest.inputs.get(path, hashed) != hashed]
        return f"input {differing[0]} changed" if differing else "config changed"
    return "output was changed by hand" if changed else None


def made_by_another(command: Command) -> bool:
    """Return whether what lies at a command's output is whole, and another command's work with another result."""
    manifest = Manifest.read(_output(command)) if _output(command).exists() else None
    if manifest is None or manifest.made_by(command.argv):
        return False
    return content_hash(_output(command)) == manifest.content and status(command) is not None


def keep_if_not_ours(command: Command) -> Path | None:
    """Move a command's output to ``OUTPUT.previous`` unless this very command made it; return where it went.

    What was made with other flags, or changed since, is somebody's work. An unfinished output stays: the command may go
    on with it.
    """
    output = _output(command)
    if not output.exists():
        return None
    manifest = Manifest.read(output)
    unchanged = manifest is not None and content_hash(output) == manifest.content
    if manifest.made_by(command.argv) if manifest and unchanged else _mark(output).exists():
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
    """Return what a command reads that is no file, as :class:`guardreasoner.workflow.manifest.Manifest` keeps it."""
    found: list[dict[str, Any]] = []
    for source in _sources(command.config.get("data")):
        arguments = source.get("init_args") or {}
        # One that reads files is known by them.
        if not any(_existing(text) for _, text in path_values(arguments)):
            path = str(source["class_path"])
            found.append({"class_path": path, "init_args": arguments, "code": code_hash(path)})
    for key, text in path_values(command.config):
        if re.search(r"\bbackbone\.(init_args\.)?path$", key) and not os.path.exists(text):
            found.append({"hub": text})
    return [origin for place, origin in enumerate(found) if origin not in found[:place]]


def path_values(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) for each text of a config whose key says that it is the path of an input.

    A key says so if one of its words (between ``_``) is path, file, folder, dir or directory, or the plural of one, or
    if it is ``rollouts`` or ``optimizer_state``. ``train``, ``validation`` and ``test`` do if the text has a suffix or
    is a pattern, since they also name data sets. The same rule holds for the arguments of user-defined classes.

    Args:
        config: a config, or the part of one below ``key``.
        key: dotted key of that part.
    """
    if isinstance(config, dict):
        for name, inner in config.items():
            if name not in _NEVER_INPUTS:
                yield from path_values(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list):
        for inner in config:
            yield from path_values(inner, key)
    elif isinstance(config, str) and config and "\0" not in config and _is_path(key.rpartition(".")[2], config):
        yield key, config


def _is_path(name: str, text: str) -> bool:
    if name in _FILE_KEYS:
        return bool(Path(text).suffix) or glob.has_magic(text)
    return name in _PATH_KEYS or not _PATH_WORDS.isdisjoint(name.split("_"))


def full(path: str | Path) -> Path:
    """Return a path from the root, without ``..`` and without following links."""
    return Path(os.path.abspath(path))


def command_line(command: Command) -> str:
    """Return a command as one would type it."""
    return shlex.join(["python", "-m", "guardreasoner", *command.argv])


def _fingerprint(verb: str, config: Config, inputs: Mapping[str, str]) -> str:
    """Return the hash of a verb, of its config without what changes nothing in the result, and of its inputs."""
    config = {key: value for key, value in config.items() if key not in _NO_EFFECT}
    if verb == "fit":
        # A checkpoint serves to go on with a run, which then ends in the same model as an unbroken one.
        config.pop("ckpt_path", None)
    if isinstance(trainer := config.get("trainer"), dict):
        config["trainer"] = {key: value for key, value in trainer.items() if key not in _NO_EFFECT_IN_TRAINER}
    return fingerprint({"verb": verb, "config": config, "inputs": inputs})


def _inputs(command: Command) -> Iterator[str]:
    """Yield the files and folders that a config names, but for the command's own output and folders that hold it."""
    own = full(command.output) if command.output else None
    for _, text in path_values(command.config):
        for found in _existing(text):
            path = full(found)
            if own is None or not (path.is_relative_to(own) or own.is_relative_to(path)):
                yield found


def _sources(owner: Any) -> Iterator[dict[str, Any]]:
    """Yield the sources of records that a class is given, those of which another one is made in its place."""
    arguments = owner.get("init_args") if isinstance(owner, dict) else None
    given = arguments if isinstance(arguments, dict) else {}
    for value in (given.get(name) for name in ("source", "sources", "benchmarks")):
        for one in value if isinstance(value, list) else [value]:
            source = {"class_path": one} if isinstance(one, str) else one
            if isinstance(source, dict) and source.get("class_path"):
                yield from list(_sources(source)) or [source]


def _existing(text: str) -> list[str]:
    """Return the text where it is a path, or the paths that it is a pattern of."""
    if os.path.exists(text):
        return [text]
    return sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) and "\n" not in text else []


def _output(command: Command) -> Path:
    if command.output is None:
        raise InputError(f"{command_line(command)}: its config has no `output`")
    return command.output


def _mark(output: Path) -> Path:
    return output.with_name(f".{output.name}.unfinished")
