"""Prediction files, the released ones and ours: ``<Benchmark>/generated_predictions.jsonl``, a line an answer.

A released row is ``{"prompt", "label", "predict"}``: the whole prompt text, the gold label (a word or an answer block)
and what the model wrote. Ours adds ``{"record_id", "labels"}``, and beside the file there may be
``hard_samples.jsonl`` with the k outputs for hard records, ``{"record_id", "labels", "index", "seed", "predict"}``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, StrictInt, TypeAdapter, ValidationError

from guardreasoner.errors import InputError
from guardreasoner.prompts import conversation, instruction, parse
from guardreasoner.records import FILE_FINGERPRINT, Record, Rollout, read_jsonl, require_unique_ids
from guardreasoner.sources.validation import validation_message
from guardreasoner.tasks import NO_VERDICT, Task, read_tasks
from guardreasoner.workflow.manifest import content_hash

PREDICTIONS = "generated_predictions.jsonl"
HARD_SAMPLES = "hard_samples.jsonl"

_USER = "Human user:\n"
_ASSISTANT = "\n\nAI assistant:\n"


@dataclass(frozen=True, slots=True)
class _PredictionRow:
    __pydantic_config__ = ConfigDict(extra="forbid")

    prompt: str
    label: str
    predict: str
    record_id: str | None = None
    labels: dict[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class _HardSampleRow:
    __pydantic_config__ = ConfigDict(extra="forbid")

    record_id: str
    labels: dict[str, str | None]
    index: StrictInt
    seed: StrictInt
    predict: str


_PREDICTION_ROWS = TypeAdapter(_PredictionRow)
_HARD_SAMPLE_ROWS = TypeAdapter(_HardSampleRow)
Row = TypeVar("Row", _PredictionRow, _HardSampleRow)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What one model answered: a rollout a record, and any number of rollouts a hard record."""

    model: str
    tasks: tuple[Task, ...]
    records: list[Record]
    rollouts: list[Rollout]
    hard_records: list[Record]
    hard_rollouts: list[Rollout]


def holds_predictions(path: str | Path) -> bool:
    """Return whether a folder holds prediction files, in itself or one level down."""
    return Path(path).is_dir() and bool(_files(Path(path)))


def predicted_tasks(path: Path) -> tuple[Task, ...]:
    """Return the tasks that a folder (or the folder above a file) says were asked; else those of GuardReasoner."""
    folder = path if path.is_dir() else path.parent
    return read_tasks(folder, folder.resolve().parent)


def read_predictions(path: str | Path, tasks: Sequence[Task] | None = None) -> Predictions:
    """Read a model's predictions.

    The model is called like the folder that holds the benchmarks; a single file that is not in such a folder, like
    itself. Ids of released rows are made of benchmark and line, "AegisSafetyTest/00012" being its thirteenth; the
    fingerprint is a hash of the file, since the weights are not known.

    Args:
        path: a file, a benchmark's folder, or a folder of those.
        tasks: what the labels may say; None: what the folder says was asked.

    Raises:
        InputError: nothing is there, or a row is not as it must be (file:line).
    """
    path = Path(path)
    files = [path] if path.is_file() else _files(path)
    if not files:
        missing = "no such file or folder" if not path.exists() else f"no {PREDICTIONS} here"
        raise InputError(
            f"{path}: {missing}", "python -m guardreasoner test --config configs/evaluate.yaml writes predictions"
        )
    tasks = tuple(tasks or predicted_tasks(path))
    first = files[0].resolve()
    model = first.parent.parent.name if first.name == PREDICTIONS else first.stem
    read = Predictions(model, tasks, [], [], [], [])
    for file in files:
        benchmark = file.resolve().parent.name if file.name == PREDICTIONS else file.stem
        _read_answers(file, benchmark, tasks, read)
        if file.name == PREDICTIONS and (hard := file.with_name(HARD_SAMPLES)).exists():
            _read_hard_samples(hard, benchmark, tasks, read)
    require_unique_ids(read.records, str(path))
    return read


def split_prompt(text: str, tasks: Sequence[Task], where: str) -> tuple[str, str | None]:
    """Return (prompt, response) of a rendered prompt text; the response None where it is the word None.

    Where the text that parts user and assistant occurs more than once, the last one parts them: a user who writes an
    assistant's turn into a request is what these texts hold, not an assistant who does.

    Raises:
        InputError: the text is not an instruction and a conversation in the released layout.
    """
    fixed = instruction(tasks) + "\n"
    start = len(fixed) if text.startswith(fixed) else 0
    if not text.startswith(_USER, start):  # another instruction, whose end only the conversation's beginning tells
        start = max(text.find("\n" + _USER) + 1, 0)
    user, parted, rest = text[start:].removeprefix(_USER).rpartition(_ASSISTANT)
    response = rest.removesuffix("\n\n")
    record = Record("", user, None if response == NO_VERDICT else response)
    if not parted or conversation(record) != text[start:]:
        raise InputError(
            f"{where}: expected 'Human user: … AI assistant: …' in the released layout, found {text[-40:]!r}"
        )
    return record.prompt, record.response


def gold_labels(label: str, response: str | None, tasks: Sequence[Task], where: str) -> dict[str, str | None]:
    """Return labels by task of a released gold label.

    An answer block names its tasks; None in it is no gold label. A bare word belongs to the task that has it; where
    several do ("harmful"), it judges the request of a conversation without a response, and otherwise the response: so
    it is in the released benchmarks.

    Raises:
        InputError: no task has the word.
    """
    block = parse(label, tasks)
    if any(block.values()):
        return dict(block)
    word = label.strip()
    owners = [task for task in tasks if word in task.labels]
    if not owners:
        known = ", ".join(dict.fromkeys(one for task in tasks for one in task.labels))
        raise InputError(f"{where}: label {label[:40]!r} is neither an answer block nor one of {known}")
    judged = owners[0] if len(owners) == 1 or response is None else owners[-1]
    return {judged.name: word}


def _files(folder: Path) -> list[Path]:
    own = folder / PREDICTIONS
    return [own] if own.is_file() else sorted(folder.glob(f"*/{PREDICTIONS}"))


def _fingerprint(file: Path) -> str:
    return FILE_FINGERPRINT + content_hash(file)[:16]


def _read_answers(file: Path, benchmark: str, tasks: Sequence[Task], read: Predictions) -> None:
    fingerprint, count = _fingerprint(file), len(read.records)
    for line, row in read_jsonl(file):
        where = f"{file}:{line}"
        prediction = _validated(_PREDICTION_ROWS, row, where)
        prompt, response = split_prompt(prediction.prompt, tasks, where)
        identity = prediction.record_id
        if identity is None:
            identity = f"{benchmark}/{len(read.records) - count:05d}"
        labels: Mapping[str, str | None] | None = prediction.labels
        if labels is None:
            labels = gold_labels(prediction.label, response, tasks, where)
        _require_labels(labels, tasks, where)
        read.records.append(Record(identity, prompt, response, labels, source=benchmark))
        read.rollouts.append(Rollout(identity, read.model, fingerprint, 0, 0, prediction.predict))
    if len(read.records) == count:
        raise InputError(f"{file}: the file holds no prediction")


def _read_hard_samples(file: Path, benchmark: str, tasks: Sequence[Task], read: Predictions) -> None:
    fingerprint = _fingerprint(file)
    known = {record.id: record for record in (*read.records, *read.hard_records)}
    seen: set[tuple[str, int, int]] = set()
    hard: set[str] = set()
    for line, row in read_jsonl(file):
        where = f"{file}:{line}"
        sample = _validated(_HARD_SAMPLE_ROWS, row, where)
        _require_labels(sample.labels, tasks, where)
        identity, key = sample.record_id, (sample.record_id, sample.seed, sample.index)
        stated = Record(identity, "", None, sample.labels, source=benchmark)
        record = known.setdefault(identity, stated)
        if record.gold() != stated.gold():
            raise InputError(f"{where}: record {identity!r} has other labels here than among the predictions")
        if key in seen:
            raise InputError(f"{where}: record {identity!r}: output {sample.index} of seed {sample.seed} occurs twice")
        seen.add(key)
        if identity not in hard:
            hard.add(identity)
            read.hard_records.append(record)
        read.hard_rollouts.append(Rollout(identity, read.model, fingerprint, sample.index, sample.seed, sample.predict))


def _validated(rows: TypeAdapter[Row], row: Mapping[str, Any], where: str) -> Row:
    try:
        return rows.validate_python(row)
    except ValidationError as error:
        raise InputError(f"{where}: {validation_message(error)}") from None


def _require_labels(labels: Mapping[str, Any], tasks: Sequence[Task], where: str) -> None:
    permitted = {task.name: task.labels for task in tasks}
    for name, label in labels.items():
        if name not in permitted:
            raise InputError(f"{where}: labels: {name!r} is no task; there are {', '.join(permitted)}")
        if label is not None and label not in permitted[name]:
            raise InputError(f"{where}: labels: {name}: {label!r} is none of {', '.join(permitted[name])}")
    if not any(label is not None for label in labels.values()):
        raise InputError(f"{where}: no label for any task ({', '.join(permitted)})")
