"""Read rollouts and their records from rollout folders or prediction files.

A rollout folder contains ``records.jsonl`` and ``rollouts.jsonl``. It may contain ``cost.manifest.json``, the cost of
sampling: ``{"seconds": 81.5, "device": "cuda", "devices": 1, "tokens": 40312, "outputs": 400}``, where ``seconds`` is
wall time multiplied by the number of devices.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import JudgedRecords
from guardreasoner.mining.findings import SamplingCost
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Record, Rollout, Split, iter_records, iter_rollouts
from guardreasoner.sources import ExcludesContaminated, Source
from guardreasoner.sources.predictions import (
    holds_predictions,
    predicted_format,
    predicted_tasks,
    read_predictions,
    stored_format,
)
from guardreasoner.sources.validation import validation_message
from guardreasoner.tasks import Task
from guardreasoner.workflow.disk_list import DiskList
from guardreasoner.workflow.integrity import warn_if_changed

log = logging.getLogger("guardreasoner")

RECORDS = "records.jsonl"
ROLLOUTS = "rollouts.jsonl"
COST = "cost.manifest.json"


def read_rollout_folders(
    paths: Iterable[str | Path], tasks: Sequence[Task] | None = None
) -> tuple[Sequence[Record], Sequence[Rollout]]:
    """Read and merge rollout folders, folders of predictions, and prediction files.

    Records are unique, in the order in which they first occur. A file that differs from its manifest is named in a
    warning.

    Args:
        paths: the folders and files.
        tasks: tasks with their permitted labels, for prediction files; None for the tasks stored in the folder.

    Raises:
        InputError: files are missing, a row is invalid (file:line), or two folders have different conversations or
            labels under the same record id.
    """
    return _read_folders(paths, tasks)[:2]


def _read_folders(
    paths: Iterable[str | Path], tasks: Sequence[Task] | None
) -> tuple[DiskList[Record], DiskList[Rollout], dict[str, int]]:
    """Return the records and rollouts of several folders, and the index of each record by its id."""
    records, rollouts, indices = DiskList[Record](), DiskList[Rollout](), dict[str, int]()
    read: list[tuple[int, str | Path]] = []
    for path in paths:
        read.append((len(records), path))
        folder_records, folder_rollouts = _open_folder(Path(path), tasks)
        for record in folder_records:
            index = indices.setdefault(record.id, len(records))
            if index == len(records):
                records.append(record)
                continue
            known = records[index]
            for difference, differs in (
                ("is another conversation", known.content_key() != record.content_key()),
                ("has other labels", known.gold() != record.gold()),
            ):
                if differs:
                    seen_in = next(earlier for first, earlier in reversed(read) if first <= index)
                    raise InputError(f"{path}: record {record.id!r} {difference} than in {seen_in}")
        rollouts.extend(folder_rollouts)
    return records, rollouts, indices


def _open_folder(path: Path, tasks: Sequence[Task] | None) -> tuple[Iterable[Record], Iterable[Rollout]]:
    """Return the records and rollouts of one folder or file, which may be read during the iteration."""
    if (path / ROLLOUTS).exists() or (path / RECORDS).exists():
        for name in (RECORDS, ROLLOUTS):
            if not (path / name).is_file():
                raise InputError(f"{path}: no {name} here, expected {RECORDS} and {ROLLOUTS}", _HINT)
        warn_if_changed(path)
        return iter_records(path / RECORDS), iter_rollouts(path / ROLLOUTS)
    if path.is_file() and path.name in (RECORDS, ROLLOUTS):
        raise InputError(f"{path}: give the folder that holds {RECORDS} and {ROLLOUTS}, not one of the files")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", _HINT)
    if not path.is_file() and not holds_predictions(path):
        raise InputError(f"{path}: neither {ROLLOUTS} nor predictions here", _HINT)
    predictions = read_predictions(path, tasks)
    for note in predictions.notes:
        log.warning("note: %s", note)
    return predictions.records, [*predictions.rollouts, *predictions.more_rollouts]


_HINT = "python -m guardreasoner predict --config configs/mine.yaml (or configs/synthesize.yaml) writes rollouts"


def rollout_tasks(paths: Iterable[str | Path]) -> tuple[Task, ...]:
    """Return the tasks of folders with rollouts or predictions.

    Raises:
        InputError: the tasks of two folders differ.
    """
    tasks_by_path = {path: predicted_tasks(Path(path)) for path in paths}
    first = next(iter(tasks_by_path))
    for path, tasks in tasks_by_path.items():
        if tasks != tasks_by_path[first]:
            raise InputError(f"{path}: the tasks ({', '.join(t.name for t in tasks)}) differ from those of {first}")
    return tasks_by_path[first]


def rollout_format(paths: Iterable[str | Path]) -> GuardFormat | None:
    """Return the format of the outputs in folders with rollouts or predictions; None: GuardReasoner's own.

    Raises:
        InputError: the formats of two folders differ.
    """
    formats = {path: predicted_format(Path(path)) for path in paths}
    first = next(iter(formats))
    for path, format in formats.items():
        if format != formats[first]:
            raise InputError(f"{path}: the outputs have another format than those of {first}")
    return formats[first]


def require_output_format(paths: Iterable[str | Path], format: GuardFormat) -> None:
    """Require that outputs have the format of the model that learns from them.

    Raises:
        InputError: a folder holds outputs in another format.
    """
    wanted = None if isinstance(format, PromptFormat) else json.loads(json.dumps(format.as_json()))
    for path in paths:
        found = stored_format(Path(path))
        if found != wanted:
            names = ["GuardReasoner's" if one is None else one["class"] for one in (found, wanted)]
            differ = f"is {names[0]}, but the model's is {names[1]}"
            if names[0] == names[1]:
                differ = f"{names[0]} has other options than the model's"
            raise InputError(f"{path}: the format of these outputs {differ}")


def read_costs(paths: Iterable[str | Path]) -> list[SamplingCost]:
    """Return the sampling cost, summed by kind of device; empty if no folder records it.

    Raises:
        InputError: a cost file is damaged.
    """
    folders = [Path(path) for path in paths]
    costs: dict[str, SamplingCost] = {}
    for folder in folders:
        if (folder / COST).is_file():
            device, seconds, tokens, outputs = _read_cost(folder / COST)
            known = costs.get(device, SamplingCost(device, 0.0, 0, 0, 0, len(folders)))
            sums = (known.seconds + seconds, known.tokens + tokens, known.outputs + outputs, known.folders + 1)
            costs[device] = SamplingCost(device, *sums, len(folders))
    return [costs[device] for device in sorted(costs)]


def read_training_rollouts(
    paths: Sequence[str | Path],
    source: Source,
    tasks: Sequence[Task] | None = None,
    format: GuardFormat | None = None,
) -> tuple[Sequence[Record], Sequence[Rollout]]:
    """Return a source's training records and the rollouts of these records, the input of mining for HS-DPO.

    Args:
        paths: folders or files.
        source: the source.
        tasks: tasks with their permitted labels, for prediction files; None for the tasks stored in the folder.
        format: format of the outputs, whose tasks are the only ones graded; None: GuardReasoner's own.

    Raises:
        InputError: for the same reasons as :func:`read_rollouts_of`, or if no training record has a rollout.
    """
    rollouts = read_rollouts_of(paths, source, tasks)
    records, ids = DiskList[Record](), set[str]()
    for record in JudgedRecords(format).of(source.records("train")):
        if record.id not in ids:
            ids.add(record.id)
            records.append(record)
    if any(rollout.record_id not in ids for rollout in rollouts):
        rollouts = DiskList(rollout for rollout in rollouts if rollout.record_id in ids)
    if not rollouts:
        raise InputError(f"data.rollouts: {', '.join(map(str, paths))}: no output for a training record")
    return records, rollouts


_SAME, _OTHER = 1, 2
"""State of a rollout's record in the source: the same conversation, or another one under its id; 0: no such id."""


def read_rollouts_of(
    paths: Iterable[str | Path], source: Source, tasks: Sequence[Task] | None = None
) -> Sequence[Rollout]:
    """Read rollouts and require that they belong to records of a source, in any split.

    Rollouts of records that the source excludes because of contamination are dropped.

    Raises:
        InputError: for the same reasons as :func:`read_rollout_folders`, or if a record is unknown to the source or has
            another conversation there.
    """
    records, rollouts, indices = _read_folders(paths, tasks)
    found = bytearray(len(records))
    for record in (record for split in get_args(Split) for record in source.records(split)):
        index = indices.get(record.id)
        if index is not None:
            found[index] = _SAME if record.content_key() == records[index].content_key() else _OTHER
    excluded_ids = set(source.excluded_ids) if isinstance(source, ExcludesContaminated) else set[str]()
    for index, state in enumerate(found):
        if state != _SAME and (record_id := records[index].id) not in excluded_ids:
            fault = "is another conversation in data.source" if state == _OTHER else "is no record of data.source"
            raise InputError(
                f"{', '.join(map(str, paths))}: these rollouts belong to other records: {record_id!r} {fault}", _HINT
            )
    if not excluded_ids:
        return rollouts
    return DiskList(rollout for rollout in rollouts if rollout.record_id not in excluded_ids)


@dataclass(frozen=True)
class _SamplingManifest:
    """Fields of ``cost.manifest.json`` that are read."""

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    device: str
    tokens: NonNegativeInt
    outputs: NonNegativeInt


def _read_cost(path: Path) -> tuple[str, float, int, int]:
    try:
        cost = TypeAdapter(_SamplingManifest).validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{path}: {validation_message(error)}", "the file records the sampling cost and nothing else; delete it"
        ) from None
    device = cost.device.partition(":")[0]
    return {"cuda": "GPU", "cpu": "CPU"}.get(device, device), cost.seconds, cost.tokens, cost.outputs
