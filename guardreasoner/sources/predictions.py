"""Read prediction files, released or our own: ``<Benchmark>/generated_predictions.jsonl``, one answer per line.

A released row is ``{"prompt", "label", "predict"}``: the full prompt text, the gold label (a label or an answer block)
and the model's output. Our rows add ``{"record_id", "labels"}``. A file ``hard_samples.jsonl`` beside it may hold k
outputs for each hard record, as rows ``{"record_id", "labels", "index", "seed", "predict"}``.
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
from guardreasoner.workflow.integrity import warn_if_changed
from guardreasoner.workflow.manifest import content_hash

PREDICTIONS = "generated_predictions.jsonl"
HARD_SAMPLES = "hard_samples.jsonl"

_USER = "Human user:\n"
_ASSISTANT = "\n\nAI assistant:\n"


@dataclass(frozen=True, slots=True)
class Predictions:
    """Outputs of one model.

    Args:
        model: name of the model.
        tasks: tasks that the model answered.
        records: the benchmark records.
        rollouts: one output per record, in the same order.
        hard_records: hard records with several outputs.
        hard_rollouts: outputs for the hard records.
    """

    model: str
    tasks: tuple[Task, ...]
    records: list[Record]
    rollouts: list[Rollout]
    hard_records: list[Record]
    hard_rollouts: list[Rollout]


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
_RowT = TypeVar("_RowT", _PredictionRow, _HardSampleRow)


def holds_predictions(path: str | Path) -> bool:
    """Return whether a folder, or one of its direct subfolders, holds a prediction file."""
    return Path(path).is_dir() and bool(_prediction_files(Path(path)))


def predicted_tasks(path: Path) -> tuple[Task, ...]:
    """Return the tasks stored in a folder, or in the folder of a file; by default, those of GuardReasoner."""
    folder = path if path.is_dir() else path.parent
    return read_tasks(folder, folder.resolve().parent)


def read_predictions(path: str | Path, tasks: Sequence[Task] | None = None) -> Predictions:
    """Read the predictions of one model.

    The model is named after the folder that holds the benchmarks; for a single file outside such a folder, after the
    file. Ids of released rows consist of benchmark and index: "AegisSafetyTest/00012" is the thirteenth row. The
    fingerprint is a hash of the file, since the weights are not known.

    Args:
        path: a file, a benchmark's folder, or a folder of such folders.
        tasks: tasks with their permitted labels; None for the tasks stored in the folder.

    Raises:
        InputError: no prediction file is found, or a row is invalid (file:line).
    """
    path = Path(path)
    files = [path] if path.is_file() else _prediction_files(path)
    if not files:
        problem = "no such file or folder" if not path.exists() else f"no {PREDICTIONS} here"
        raise InputError(
            f"{path}: {problem}", "python -m guardreasoner test --config configs/evaluate.yaml writes predictions"
        )
    warn_if_changed(path)
    tasks = tuple(tasks or predicted_tasks(path))
    first = files[0].resolve()
    model = first.parent.parent.name if first.name == PREDICTIONS else first.stem
    predictions = Predictions(model, tasks, [], [], [], [])
    for file in files:
        benchmark = file.resolve().parent.name if file.name == PREDICTIONS else file.stem
        _read_prediction_file(file, benchmark, predictions)
        if file.name == PREDICTIONS and (hard_samples := file.with_name(HARD_SAMPLES)).exists():
            _read_hard_samples(hard_samples, benchmark, predictions)
    require_unique_ids(predictions.records, str(path))
    return predictions


def split_prompt(text: str, tasks: Sequence[Task], where: str) -> tuple[str, str | None]:
    """Split a rendered prompt text into prompt and response; the response is None if its text is "None".

    If the separator between user and assistant occurs several times, the last one counts: in these texts, a user may
    imitate an assistant's turn, but not the other way round.

    Args:
        text: instruction and conversation in the released layout.
        tasks: tasks of the instruction.
        where: location of the text, for messages.

    Raises:
        InputError: the text does not have the released layout.
    """
    fixed = instruction(tasks) + "\n"
    start = len(fixed) if text.startswith(fixed) else 0
    if not text.startswith(_USER, start):  # another instruction, which ends where the conversation begins
        start = max(text.find("\n" + _USER) + 1, 0)
    user, separator, rest = text[start:].removeprefix(_USER).rpartition(_ASSISTANT)
    response = rest.removesuffix("\n\n")
    record = Record("", user, None if response == NO_VERDICT else response)
    if not separator or conversation(record) != text[start:]:
        raise InputError(
            f"{where}: expected 'Human user: … AI assistant: …' in the released layout, found {text[-40:]!r}"
        )
    return record.prompt, record.response


def gold_labels(label: str, response: str | None, tasks: Sequence[Task], where: str) -> dict[str, str | None]:
    """Convert a released gold label to labels by task.

    An answer block names its tasks; "None" in it means no gold label. A single label belongs to the task that has it.
    If several tasks have it ("harmful"), it belongs to the request if there is no response, otherwise to the response,
    as in the released benchmarks.

    Raises:
        InputError: no task has the label.
    """
    block = parse(label, tasks)
    if any(block.values()):
        return dict(block)
    single = label.strip()
    candidates = [task for task in tasks if single in task.labels]
    if not candidates:
        known = ", ".join(dict.fromkeys(name for task in tasks for name in task.labels))
        raise InputError(f"{where}: label {label[:40]!r} is neither an answer block nor one of {known}")
    task = candidates[0] if len(candidates) == 1 or response is None else candidates[-1]
    return {task.name: single}


def _prediction_files(folder: Path) -> list[Path]:
    file = folder / PREDICTIONS
    return [file] if file.is_file() else sorted(folder.glob(f"*/{PREDICTIONS}"))


def _fingerprint(file: Path) -> str:
    return FILE_FINGERPRINT + content_hash(file)[:16]


def _read_prediction_file(file: Path, benchmark: str, predictions: Predictions) -> None:
    fingerprint, offset, tasks = _fingerprint(file), len(predictions.records), predictions.tasks
    for line, values in read_jsonl(file):
        where = f"{file}:{line}"
        row = _validated(_PREDICTION_ROWS, values, where)
        prompt, response = split_prompt(row.prompt, tasks, where)
        record_id = row.record_id
        if record_id is None:
            record_id = f"{benchmark}/{len(predictions.records) - offset:05d}"
        labels = gold_labels(row.label, response, tasks, where) if row.labels is None else row.labels
        _require_labels(labels, tasks, where)
        predictions.records.append(Record(record_id, prompt, response, labels, source=benchmark))
        predictions.rollouts.append(Rollout(record_id, predictions.model, fingerprint, 0, 0, row.predict))
    if len(predictions.records) == offset:
        raise InputError(f"{file}: the file has no predictions")


def _read_hard_samples(file: Path, benchmark: str, predictions: Predictions) -> None:
    fingerprint = _fingerprint(file)
    known = {record.id: record for record in (*predictions.records, *predictions.hard_records)}
    seen: set[tuple[str, int, int]] = set()
    hard: set[str] = set()
    for line, values in read_jsonl(file):
        where = f"{file}:{line}"
        row = _validated(_HARD_SAMPLE_ROWS, values, where)
        _require_labels(row.labels, predictions.tasks, where)
        record_id, key = row.record_id, (row.record_id, row.seed, row.index)
        # A record that has no prediction of its own is known only by its labels.
        without_text = Record(record_id, "", None, row.labels, source=benchmark)
        record = known.setdefault(record_id, without_text)
        if record.gold() != without_text.gold():
            raise InputError(f"{where}: record {record_id!r} has other labels here than among the predictions")
        if key in seen:
            raise InputError(f"{where}: record {record_id!r}: output {row.index} of seed {row.seed} occurs twice")
        seen.add(key)
        if record_id not in hard:
            hard.add(record_id)
            predictions.hard_records.append(record)
        predictions.hard_rollouts.append(
            Rollout(record_id, predictions.model, fingerprint, row.index, row.seed, row.predict)
        )


def _validated(rows: TypeAdapter[_RowT], values: Mapping[str, Any], where: str) -> _RowT:
    try:
        return rows.validate_python(values)
    except ValidationError as error:
        raise InputError(f"{where}: {validation_message(error)}") from None


def _require_labels(labels: Mapping[str, Any], tasks: Sequence[Task], where: str) -> None:
    permitted = {task.name: task.labels for task in tasks}
    for name, label in labels.items():
        if name not in permitted:
            raise InputError(f"{where}: labels: unknown task {name!r}, expected one of {', '.join(permitted)}")
        if label is not None and label not in permitted[name]:
            raise InputError(f"{where}: labels: {name}: {label!r} is none of {', '.join(permitted[name])}")
    if not any(label is not None for label in labels.values()):
        raise InputError(f"{where}: no label for any task ({', '.join(permitted)})")
