"""Reads rollouts with the records they belong to: folders that mining wrote, or prediction files.

A rollout folder holds ``records.jsonl`` and ``rollouts.jsonl``. It may hold ``cost.manifest.json``, what sampling took:
``{"seconds": 81.5, "device": "cuda", "devices": 1, "tokens": 40312, "outputs": 400}``, seconds being wall time times
devices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError

from guardreasoner.errors import InputError
from guardreasoner.mining.findings import SamplingCost
from guardreasoner.records import Record, Rollout, Split, read_records, read_rollouts
from guardreasoner.sources import Source
from guardreasoner.sources.predictions import holds_predictions, predicted_tasks, read_predictions
from guardreasoner.sources.validation import validation_message
from guardreasoner.tasks import Task

RECORDS = "records.jsonl"
ROLLOUTS = "rollouts.jsonl"
COST = "cost.manifest.json"


def read_rollout_folder(path: str | Path, tasks: Sequence[Task] | None = None) -> tuple[list[Record], list[Rollout]]:
    """Read one rollout folder, folder of predictions, or prediction file.

    Args:
        path: where it is.
        tasks: what the gold labels of prediction files may say; None: what the folder says was asked.

    Raises:
        InputError: nothing is there, or a row is not as it must be (file:line).
    """
    path = Path(path)
    if (path / ROLLOUTS).exists() or (path / RECORDS).exists():
        for name in (RECORDS, ROLLOUTS):
            if not (path / name).is_file():
                raise InputError(f"{path}: no {name} here; rollouts and their records lie side by side", _HINT)
        return read_records(path / RECORDS), read_rollouts(path / ROLLOUTS)
    if path.is_file() and path.name in (RECORDS, ROLLOUTS):
        raise InputError(f"{path}: give the folder that holds {RECORDS} and {ROLLOUTS}, not one of the files")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", _HINT)
    if not path.is_file() and not holds_predictions(path):
        raise InputError(f"{path}: neither {ROLLOUTS} nor predictions here", _HINT)
    predictions = read_predictions(path, tasks)
    return predictions.records, predictions.rollouts


def read_rollout_folders(
    paths: Iterable[str | Path], tasks: Sequence[Task] | None = None
) -> tuple[list[Record], list[Rollout]]:
    """Read several, of the same or of different records, as one: each record once, in the order it is first seen.

    Raises:
        InputError: as :func:`read_rollout_folder`, or the same id is another conversation, or has other labels,
            elsewhere.
    """
    records: dict[str, Record] = {}
    seen_in: dict[str, str | Path] = {}
    rollouts: list[Rollout] = []
    for path in paths:
        more, outputs = read_rollout_folder(path, tasks)
        rollouts += outputs
        for record in more:
            known = records.setdefault(record.id, record)
            seen_in.setdefault(record.id, path)
            for what, differs in (
                ("is another conversation", (known.prompt, known.response) != (record.prompt, record.response)),
                ("has other labels", known.gold() != record.gold()),
            ):
                if differs:
                    raise InputError(f"{path}: record {record.id!r} {what} than in {seen_in[record.id]}")
    return list(records.values()), rollouts


_HINT = "python -m guardreasoner predict --config configs/mine.yaml (or configs/synthesize.yaml) writes rollouts"


def rollout_tasks(paths: Iterable[str | Path]) -> tuple[Task, ...]:
    """Return the tasks that folders of rollouts or predictions were asked.

    Raises:
        InputError: not all were asked the same.
    """
    found = {path: predicted_tasks(Path(path)) for path in paths}
    first = next(iter(found))
    for path, tasks in found.items():
        if tasks != found[first]:
            raise InputError(f"{path}: other tasks were asked than in {first}: {', '.join(t.name for t in tasks)}")
    return found[first]


def read_costs(paths: Iterable[str | Path]) -> list[SamplingCost]:
    """Return what sampling took, added up by kind of device; nothing where no folder says.

    Raises:
        InputError: a file of costs is damaged.
    """
    folders = [Path(path) for path in paths]
    found: dict[str, SamplingCost] = {}
    for folder in folders:
        if (folder / COST).is_file():
            kind, seconds, tokens, outputs = _read_cost(folder / COST)
            known = found.get(kind, SamplingCost(kind, 0.0, 0, 0, 0, len(folders)))
            sums = (known.seconds + seconds, known.tokens + tokens, known.outputs + outputs, known.folders + 1)
            found[kind] = SamplingCost(kind, *sums, len(folders))
    return [found[kind] for kind in sorted(found)]


def read_training_rollouts(
    paths: Sequence[str | Path], source: Source, tasks: Sequence[Task] | None = None
) -> tuple[list[Record], list[Rollout]]:
    """Return a source's training records, and the rollouts on them: what a fit of HS-DPO mines.

    Raises:
        InputError: as :func:`read_rollouts_of`, or there is no rollout on a training record.
    """
    records = {record.id: record for record in source.records("train")}
    rollouts = [one for one in read_rollouts_of(paths, source, tasks) if one.record_id in records]
    if not rollouts:
        raise InputError(f"data.rollouts: {', '.join(map(str, paths))}: no output for a training record")
    return list(records.values()), rollouts


def read_rollouts_of(paths: Iterable[str | Path], source: Source, tasks: Sequence[Task] | None = None) -> list[Rollout]:
    """Read rollouts that must belong to a source's records, of any split.

    Raises:
        InputError: as :func:`read_rollout_folders`, or a record is not the source's or not the same conversation.
    """
    own = {record.id: record for split in get_args(Split) for record in source.records(split)}
    excluded_ids = set(
        getattr(source, "excluded_ids", ())
    )  # known to the source, but in no split since a benchmark holds them
    records, rollouts = read_rollout_folders(paths, tasks)
    for record in records:
        if record.id in excluded_ids:
            continue
        known = own.get(record.id)
        if known is None or (known.prompt, known.response) != (record.prompt, record.response):
            fault = "is no record of data.source" if known is None else "is another conversation in data.source"
            raise InputError(
                f"{', '.join(map(str, paths))}: these rollouts belong to other records: {record.id!r} {fault}", _HINT
            )
    return [rollout for rollout in rollouts if rollout.record_id not in excluded_ids]


@dataclass(frozen=True)
class _SamplingManifest:
    """The fields of ``cost.manifest.json`` that are read."""

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
