"""The folder ``.NAME.fit`` beside the output of a fit: its checkpoints, and what it was started with."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import replacing_file
from guardreasoner.workflow.redaction import without_secrets
from guardreasoner.workflow.sealed_file import beside, details_of, is_damaged
from guardreasoner.workflow.staleness import StageState, command_line, effective_config

log = logging.getLogger("guardreasoner")

_STARTED_WITH = "run.json"
KEPT = 2
"""Checkpoints that are kept: the last one, and the one before it in case the last one is damaged."""
_SHOWN = 3
"""Differences that an error message names."""


class UnfinishedFit:
    """What a fit leaves until it is finished.

    Args:
        output: folder that the fit writes in the end.
    """

    def __init__(self, output: str | Path) -> None:
        output = Path(output)
        self.output = output
        self.folder = output.with_name(f".{output.name}.fit")

    def checkpoint(self, step: int) -> Path:
        """Return the path of the checkpoint after ``step`` optimizer steps."""
        return self.folder / f"step-{step:09}.ckpt"

    def steps(self) -> list[int]:
        """Return the number of steps after which each checkpoint was written, in order."""
        return sorted(int(path.stem.removeprefix("step-")) for path in self.folder.glob("step-*.ckpt"))

    def last_checkpoint(self, state: StageState) -> Path | None:
        """Return the newest undamaged checkpoint, None if there is none; damaged ones are reported.

        Args:
            state: config and inputs of the fit that would continue from it.

        Raises:
            InputError: the checkpoints were made with another config or other inputs.
        """
        steps = self.steps()
        if steps:
            self._require_same(state)
        for path in map(self.checkpoint, reversed(steps)):
            if not is_damaged(path):
                return path
            log.warning("%s is damaged: its SHA-256 is not the one in %s", path, beside(path).name)
        return None

    def begin(self, state: StageState, log_folder: Path | None) -> None:
        """Store what the fit is started with.

        Args:
            state: config and inputs of the fit.
            log_folder: TensorBoard folder of the run, which a resumed run continues.
        """
        row = {**_identity(state), "command": command_line(state.command)}
        row["log_folder"] = str(log_folder) if log_folder else None
        with replacing_file(self.folder / _STARTED_WITH) as partial:
            partial.write_text(json.dumps(row, indent=2, default=str) + "\n", encoding="utf-8")

    def log_folder(self, state: StageState) -> Path | None:
        """Return the TensorBoard folder of a run with this config and these inputs, None if there is none."""
        before = self._started_with()
        folder = before.get("log_folder")
        return Path(folder) if isinstance(folder, str) and not _all_differences(before, _identity(state)) else None

    def remove_old_checkpoints(self) -> None:
        """Keep the last two checkpoints."""
        for path in map(self.checkpoint, self.steps()[:-KEPT]):
            path.unlink(missing_ok=True)
            beside(path).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def discard_if_empty(self) -> None:
        """Remove the folder if it holds no checkpoint."""
        if not self.steps():
            self.discard()

    def _started_with(self) -> dict[str, Any]:
        try:
            row = json.loads((self.folder / _STARTED_WITH).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return row if isinstance(row, dict) and {"config", "inputs"} <= row.keys() else {}

    def _require_same(self, state: StageState) -> None:
        before = self._started_with()
        if not before:
            raise InputError(
                f"{self.folder}: {_STARTED_WITH} is missing or damaged, so the checkpoints belong to an unknown config",
                f"remove {self.folder} to train from the beginning",
            )
        differing = _all_differences(before, _identity(state))
        if differing:
            more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
            raise InputError(
                f"{self.output}: an unfinished fit has other settings: {'; '.join(differing[:_SHOWN])}{more}",
                f"finish it with the earlier settings, or remove {self.folder} to train from the beginning",
            )


def continue_log(log_folder: Path, sizes: Mapping[str, int]) -> None:
    """Cut the event files of a TensorBoard folder to what they held at a checkpoint.

    What was logged after it is logged again by the resumed run.

    Args:
        log_folder: folder with the event files.
        sizes: size in bytes of each event file at the checkpoint, by path relative to the folder; files that are not in
            it are removed.
    """
    for path in event_files(log_folder):
        size = sizes.get(path.relative_to(log_folder).as_posix())
        if size is None:
            path.unlink()
        elif path.stat().st_size > size:
            with path.open("r+b") as file:
                file.truncate(size)


def log_sizes(log_folder: Path) -> dict[str, int]:
    """Return the size in bytes of each event file of a TensorBoard folder, by relative path."""
    return {path.relative_to(log_folder).as_posix(): path.stat().st_size for path in event_files(log_folder)}


def event_files(log_folder: Path) -> list[Path]:
    """Return the event files of a TensorBoard folder."""
    return sorted(log_folder.rglob("events.out.tfevents.*"))


def sizes_at(checkpoint: Path) -> dict[str, int]:
    """Return the sizes of the event files that were stored beside a checkpoint."""
    sizes = details_of(checkpoint).get("log_sizes")
    return sizes if isinstance(sizes, dict) else {}


def _identity(state: StageState) -> dict[str, Any]:
    config = without_secrets(effective_config(state.command.verb, state.command.config))
    # Through JSON, as it is stored.
    return json.loads(json.dumps({"config": config, "inputs": state.inputs}, default=str))


def _all_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [*_differences(before["config"], now["config"], ""), *_changed_inputs(before["inputs"], now["inputs"])]


def _differences(before: Any, now: Any, key: str) -> Iterator[str]:
    """Yield ``key: before, now`` for each value that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
    elif before != now:
        yield f"{key} was {_short(before)}, is {_short(now)}"


def _changed_inputs(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [f"{path} changed" for path in sorted({*before, *now}) if before.get(path) != now.get(path)]


def _short(value: Any) -> str:
    text = "unset" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
