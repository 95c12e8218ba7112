"""The folder ``.NAME.fit`` beside the output of a fit: its checkpoints, and what it was started with."""

import glob
import json
import logging
import os
import platform
import re
import shlex
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records.atomic_file import replacing_file, temporary
from guardreasoner.workflow.manifest import fingerprint
from guardreasoner.workflow.redaction import command_without_secrets, without_secrets
from guardreasoner.workflow.sealed_file import beside, details_of, is_damaged, read_row
from guardreasoner.workflow.staleness import StageState, effective_config

log = logging.getLogger("guardreasoner")

KEPT = 2
"""Checkpoints that are kept: the last one, and the one before it in case the last one is damaged."""

_STARTED_WITH = "run.json"
_UNUSABLE = ".unusable"
"""Added to the names of checkpoints if none of them can be used."""

_SHOWN = 3
"""Differences that an error message names."""

_IDENTITY, _LOG_SIZES = "run", "log_sizes"
"""What is stored beside a checkpoint: the fingerprint of the run, and the size of each event file."""


class UnfinishedFit:
    """Checkpoints and log of a fit that is not finished, in a folder beside its output.

    Args:
        output: folder that the fit writes in the end.
        state: config and inputs of the fit.
    """

    def __init__(self, output: str | Path, state: StageState) -> None:
        self.output = Path(output)
        self.folder = folder_beside(self.output)
        self._state = state
        self._identity = _identity(state)
        self._former = _read(self.folder / _STARTED_WITH)

    def checkpoint(self, step: int) -> Path:
        """Return the path of the checkpoint after ``step`` optimizer steps."""
        return self.folder / f"step-{step:09}.ckpt"

    def steps(self) -> list[int]:
        """Return the number of steps after which each checkpoint was written, in order."""
        matches = (re.fullmatch(r"step-(\d{9})\.ckpt", path.name) for path in self.folder.glob("step-*.ckpt"))
        return sorted(int(match[1]) for match in matches if match)

    def last_checkpoint(self) -> Path | None:
        """Return the newest undamaged checkpoint of this fit, None if there is none; others are reported.

        Raises:
            InputError: the checkpoints were made with another config or other inputs, or one cannot be read.
        """
        steps = self.steps()
        if steps:
            self._require_same()
        for path in map(self.checkpoint, reversed(steps)):
            if read_row(beside(path)) is None or is_damaged(path):
                log.warning("%s is damaged: its SHA-256 is not the one in %s", path, beside(path).name)
            elif details_of(path).get(_IDENTITY) != fingerprint(self._identity):
                log.warning("%s belongs to another fit", path)
            else:
                return path
        if steps:
            log.warning(
                "%s: no checkpoint can be used; they are kept as %s, and training starts from the beginning",
                self.output,
                self.folder / f"*{_UNUSABLE}",
            )
        return None

    def log_folder(self) -> Path | None:
        """Return the TensorBoard folder of the former run of this fit, None if there is none."""
        folder = self._former.get("log_folder")
        return Path(folder) if isinstance(folder, str) and not self._differences() else None

    def begin(self, log_folder: Path | None, resumed_from: Path | None) -> None:
        """Store what the fit is started with, and remove checkpoints and logged values that it will make again.

        If none can be used, they are renamed instead, since the fault may be one that passes.

        Args:
            log_folder: TensorBoard folder of this run; that of the former run is continued.
            resumed_from: checkpoint that the fit continues from, None if it starts from the beginning.
        """
        for half in self.folder.glob(".step-*.partial"):  # left by a kill while a checkpoint was written
            half.unlink(missing_ok=True)
        for path in map(self.checkpoint, self.steps()):
            if resumed_from is None:
                _set_aside(path)
            elif path.name > resumed_from.name:
                _remove(path)
        folder = Path(os.path.abspath(log_folder)) if log_folder else None
        writers = self._former.get("writers") if folder and folder == self.log_folder() else None
        writers = [*(writers if isinstance(writers, list) else []), [*_this_writer(), int(time.time())]]
        if folder:
            _continue_log(folder, writers[:-1], log_sizes_at(resumed_from) if resumed_from else {})
            _wait_for_a_new_name(folder)
        command = shlex.join(["python", "-m", "guardreasoner", *command_without_secrets(self._state.command.argv)])
        row = {**self._identity, "command": command, "writers": writers}
        row["log_folder"] = str(folder) if folder else None
        with replacing_file(self.folder / _STARTED_WITH) as partial:
            partial.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
        self._former = row

    def details(self, log_folder: Path | None) -> dict[str, Any]:
        """Return what to store beside a checkpoint.

        Args:
            log_folder: TensorBoard folder of this run, all of whose values are on the disk.
        """
        files = _own_event_files(log_folder, self._former["writers"]) if log_folder else []
        return {_IDENTITY: fingerprint(self._identity), _LOG_SIZES: {path.name: path.stat().st_size for path in files}}

    def remove_old_checkpoints(self) -> None:
        """Keep the last two checkpoints."""
        for path in map(self.checkpoint, self.steps()[:-KEPT]):
            _remove(path)

    def discard_if_empty(self) -> None:
        """Remove the folder if it holds no checkpoint, not even one that cannot be used."""
        if not self.steps() and not any(self.folder.glob(f"*{_UNUSABLE}")):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _differences(self) -> list[str]:
        before, now = self._former, self._identity
        return [
            *_differing_values(before["config"], now["config"], ""),
            *_differing_files(before["inputs"], now["inputs"]),
            *_differing_files(before["code"], now["code"]),
        ]

    def _require_same(self) -> None:
        if not self._former:
            raise InputError(
                f"{self.folder}: {_STARTED_WITH} is missing or damaged, so the checkpoints belong to an unknown config",
                f"remove {self.folder} to train from the beginning",
            )
        if differing := self._differences():
            more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
            raise InputError(
                f"{self.output}: an unfinished fit has other settings: {'; '.join(differing[:_SHOWN])}{more}",
                f"finish it with the earlier settings, or remove {self.folder} to train from the beginning",
            )


def folder_beside(output: Path) -> Path:
    """Return the folder of the unfinished fit of an output."""
    return output.with_name(f".{output.name}.fit")


def discard_unfinished(output: Path) -> None:
    """Remove the folder of a fit whose output is complete.

    It is renamed first: a folder that is half removed would be one with checkpoints of an unknown config. What a kill
    leaves of it has a name that ``restore_output`` removes.
    """
    garbage = temporary(output, "new")
    with suppress(FileNotFoundError):
        folder_beside(output).rename(garbage)
    shutil.rmtree(garbage, ignore_errors=True)


def log_sizes_at(checkpoint: Path) -> dict[str, int]:
    """Return the size in bytes of each event file of the run when a checkpoint was written, by name."""
    sizes = details_of(checkpoint).get(_LOG_SIZES)
    return sizes if isinstance(sizes, dict) else {}


def _continue_log(folder: Path, writers: Collection[Any], sizes: Mapping[str, int]) -> None:
    """Cut the event files of this fit to what they held at a checkpoint; those of other runs stay as they are.

    What was logged after the checkpoint is logged again by the resumed run.
    """
    for path in _own_event_files(folder, writers):
        size = sizes.get(path.name)
        if size is None:
            path.unlink()
        elif path.stat().st_size > size:
            os.truncate(path, size)


def _wait_for_a_new_name(folder: Path) -> None:
    """Wait, at most a second, until no event file has the name that this process would give to its own.

    The name has the second and the process id, which all processes of a container may have, and TensorBoard overwrites
    the file.
    """
    host, process = _this_writer()
    while any(folder.glob(f"events.out.tfevents.{int(time.time())}.{glob.escape(host)}.{process}.*")):
        time.sleep(0.05)


def _own_event_files(folder: Path, writers: Collection[Any]) -> list[Path]:
    """Return the event files that certain processes have written.

    TensorBoard names a file ``events.out.tfevents.SECONDS.HOST.PROCESS.NUMBER``.

    Args:
        folder: TensorBoard folder of one run.
        writers: [host, process, second from which on its files count] of each process.
    """
    own = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        match = re.fullmatch(r"events\.out\.tfevents\.(\d+)\.(.+)\.(\d+)\.\d+", path.name)
        if match and any(
            (match[2], int(match[3])) == (host, process) and int(match[1]) >= since for host, process, since in writers
        ):
            own.append(path)
    return own


def _this_writer() -> tuple[str, int]:
    return platform.node(), os.getpid()


def _set_aside(checkpoint: Path) -> None:
    for path in (checkpoint, beside(checkpoint)):
        with suppress(FileNotFoundError):
            path.rename(path.with_name(path.name + _UNUSABLE))


def _remove(checkpoint: Path) -> None:
    checkpoint.unlink(missing_ok=True)
    beside(checkpoint).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """Return what a fit was started with, an empty dict if the file is missing or damaged."""
    row = read_row(path) or {}
    return row if all(isinstance(row.get(name), dict) for name in ("config", "inputs", "code")) else {}


def _identity(state: StageState) -> dict[str, Any]:
    """Return what determines the result of a fit, as it is read again from JSON."""
    config = without_secrets(effective_config(state.command.verb, state.command.config))
    row = {"config": config, "inputs": state.inputs, "code": state.code}
    identity: dict[str, Any] = json.loads(json.dumps(row, default=str))
    return identity


def _differing_values(before: Any, now: Any, key: str) -> Iterator[str]:
    """Yield a sentence for each value of a config that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _differing_values(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
    elif before != now:
        yield f"{key} was {_short(before)}, is {_short(now)}"


def _differing_files(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield f"{name} " + ("has changed" if name in before and name in now else "is used by only one of them")


def _short(value: Any) -> str:
    text = "unset" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
