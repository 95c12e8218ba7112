"""Read prediction files, released or our own: ``<Benchmark>/generated_predictions.jsonl``, one answer per line.

A released row is ``{"prompt", "label", "predict"}``: the full prompt text, the gold label (a label or an answer block)
and the model's output. A chat template around the prompts and end tokens after the outputs are removed and counted,
since other tools write them. A file may also be a JSON list of such rows. The released miner samples k outputs of each
record into ``<Benchmark>/0/generated_predictions.jsonl`` to ``<Benchmark>/k-1/…``; a folder of our rows with such a
name holds a benchmark of that name.

Our rows add ``{"record_id", "labels"}`` and, where they are known, ``{"scores", "speed", "messages", "policy",
"language", "extra"}``; ``scores`` holds probabilities of labels (:mod:`guardreasoner.sources.label_scores`). A file
``hard_samples.jsonl`` beside it may hold k outputs for each hard record, as rows ``{"record_id", "labels", "index",
"seed", "predict"}``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, StrictFloat, StrictInt, TypeAdapter, ValidationError

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.stored import read_output_format, stored_output_format
from guardreasoner.formats.verdicts import read_verdicts
from guardreasoner.prompts import conversation, instruction, parse
from guardreasoner.records import (
    FILE_FINGERPRINT,
    Message,
    Record,
    Rollout,
    Speed,
    messages_of,
    require_policy_and_extra,
    require_unique_ids,
)
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.sources.label_scores import (
    LabelScores,
    ScoresByKind,
    require_label_scores,
    scores_by_kind,
    scores_of_verdicts,
)
from guardreasoner.sources.rows import file_format, read_file_rows
from guardreasoner.sources.template_text import (
    CHAT_TEMPLATES,
    chat_template_around,
    strip_end_tokens,
    unknown_end,
    without_template,
)
from guardreasoner.sources.validation import validation_message
from guardreasoner.tasks import NO_VERDICT, Task, read_tasks
from guardreasoner.workflow.integrity import warn_if_changed
from guardreasoner.workflow.manifest import content_hash, fingerprint

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
        more_rollouts: further outputs of the records, from folders of k outputs.
        notes: sentences on what was removed or left out while reading.
        has_ids: whether the rows have record ids; otherwise an id is the benchmark with the row's index.
        format: format of the outputs; None: GuardReasoner's own.
        scores: probabilities of the labels of records, of those rows that have them; without the tasks for which the
            output has no verdict (:func:`guardreasoner.sources.label_scores.scores_of_verdicts`).
    """

    model: str
    tasks: tuple[Task, ...]
    records: list[Record]
    rollouts: list[Rollout]
    hard_records: list[Record]
    hard_rollouts: list[Rollout]
    more_rollouts: list[Rollout] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    has_ids: bool = False
    format: GuardFormat | None = None
    scores: ScoresByKind = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _PredictionRow:
    __pydantic_config__ = ConfigDict(extra="forbid")

    prompt: str
    label: str
    predict: str
    record_id: str | None = None
    labels: dict[str, str | None] | None = None
    scores: dict[str, dict[str, dict[str, StrictFloat]]] | None = None
    speed: Speed | None = None
    messages: list[dict[str, Any]] | None = None
    policy: str | None = None
    language: str | None = None
    extra: dict[str, str] | None = None


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
    """Return whether a folder, or one of its direct subfolders, holds a prediction file or folders of k outputs."""
    return Path(path).is_dir() and bool(_prediction_files(Path(path)))


def predicted_tasks(path: Path) -> tuple[Task, ...]:
    """Return the tasks stored in a folder, or in the folder of a file; by default, those of GuardReasoner."""
    return read_tasks(*_folders_of(path))


def stored_format(path: Path) -> dict[str, Any] | None:
    """Return the stored format of the outputs at a path without loading it; None: GuardReasoner's own."""
    return stored_output_format(*_folders_of(path))


def predicted_format(path: Path) -> GuardFormat | None:
    """Return the format of the outputs in a folder, or in the folder of a file; None: GuardReasoner's own."""
    return read_output_format(*_folders_of(path))


def read_predictions(path: str | Path, tasks: Sequence[Task] | None = None) -> Predictions:
    """Read the predictions of one model.

    The model is named after the folder that holds the benchmarks; for a single file outside such a folder, after the
    file. Ids of released rows consist of benchmark and index: "AegisSafetyTest/00012" is the thirteenth row. The
    fingerprint is a hash of the file, or of the folder of k outputs, since the weights are not known.

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
    origins = [_Origin.of(file) for file in files]
    predictions = Predictions(origins[0].model, tasks, [], [], [], [], format=predicted_format(path))
    scores: dict[str, LabelScores] = {}
    read = [_read_prediction_file(origin, predictions, scores) for origin in origins]
    require_unique_ids(predictions.records, str(path))
    return replace(predictions, has_ids=any(read), scores=scores_by_kind(scores.items()))


def content_fields(record: Record, prompt: str, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return the fields of a row that hold what cannot be read back from the text of its prompt.

    Args:
        record: the record.
        prompt: the text of its prompt.
        tasks: tasks of the model, as they are stored beside the row.
    """
    fields = {name: value for name, value in record.as_json().items() if name in ("policy", "language", "extra")}
    messages = [message.as_json() for message in record.messages]
    if not record.is_one_turn or record.policy is not None:
        return {"messages": messages, **fields}
    try:
        is_read_back = split_prompt(prompt, tasks, "") == (record.prompt, record.response)
    except InputError:  # another format
        is_read_back = False
    return fields if is_read_back else {**fields, "messages": messages}  # in the order of earlier versions


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


@dataclass(frozen=True, slots=True)
class _Origin:
    """What the path of a prediction file says about its rows.

    Args:
        file: the file.
        model: name of the model.
        benchmark: name of the benchmark.
        index: index of the outputs among the k outputs of a record; None if the file is not one of several.
        fingerprint: fingerprint of the outputs.
    """

    file: Path
    model: str
    benchmark: str
    index: int | None
    fingerprint: str

    @classmethod
    def of(cls, file: Path) -> "_Origin":
        """Return what the path of a file says."""
        folder = file.resolve().parent
        if file.name != PREDICTIONS:
            return cls(file, file.stem, file.stem, None, _fingerprint(file))
        if _is_index(folder):
            above = folder.parent
            return cls(file, above.parent.name, above.name, int(folder.name), _outputs_fingerprint(above))
        return cls(file, folder.parent.name, folder.name, None, _fingerprint(file))


def _prediction_files(folder: Path) -> list[Path]:
    file = folder / PREDICTIONS
    if file.is_file():
        return [file]
    outputs = (file for file in folder.glob(f"*/[0-9]*/{PREDICTIONS}") if _is_index(file.parent))
    return sorted([*folder.glob(f"*/{PREDICTIONS}"), *outputs], key=_file_order)


def _file_order(file: Path) -> tuple[str, int]:
    """Return a sort key: folders of k outputs come in the order of their numbers."""
    folder = file.parent
    return (str(folder.parent), int(folder.name)) if _is_index(folder) else (str(folder), 0)


def _folders_of(path: Path) -> tuple[Path, ...]:
    """Return the folders that may say the tasks and the format of the outputs at a path."""
    folder = (path if path.is_dir() else path.parent).resolve()
    above = (folder.parent.parent,) if _is_index(folder) else ()
    return (folder, folder.parent, *above)


def _is_index(folder: Path) -> bool:
    """Return whether a folder holds one of k outputs: its name is 0, 1, 2 …, and its rows have no ids as ours have."""
    name = folder.name
    return name.isdecimal() and name.isascii() and len(name) < 6 and not _has_ids(folder / PREDICTIONS)


def _has_ids(file: Path) -> bool:
    """Return whether the first row of a file has a record id; False if it cannot be read."""
    try:
        return any(row.get("record_id") is not None for _, row in islice(read_jsonl(file), 1))
    except InputError:  # reported when all rows are read
        return False


def _fingerprint(file: Path) -> str:
    return FILE_FINGERPRINT + content_hash(file)[:16]


def _outputs_fingerprint(folder: Path) -> str:
    """Return one fingerprint for all of k outputs, whichever of their folders are read."""
    files = sorted((file for file in folder.glob(f"*/{PREDICTIONS}") if _is_index(file.parent)), key=_file_order)
    return FILE_FINGERPRINT + fingerprint([content_hash(file) for file in files])[:16]


def _read_prediction_file(origin: _Origin, predictions: Predictions, scores: dict[str, LabelScores]) -> bool:
    """Add the rows of a file with their scores, and the hard samples beside it; return whether the rows have ids."""
    rows = _rows_of_other_tools(origin.file, list(_prediction_rows(origin.file)), predictions)
    if not rows:
        raise InputError(f"{origin.file}: the file has no predictions")
    known = {record.id: record for record in predictions.records} if origin.index is not None else {}
    found: set[str] = set()
    for index, (where, row) in enumerate(rows):
        record_id = f"{origin.benchmark}/{index:05d}" if row.record_id is None else row.record_id
        record = _record(row, record_id, origin.benchmark, predictions.tasks, where)
        require_label_scores(row.scores or {}, predictions.tasks, where)
        rollout = Rollout(
            record_id, predictions.model, origin.fingerprint, origin.index or 0, 0, row.predict, row.speed or "reasoned"
        )
        if record_id not in known:
            predictions.records.append(record)
            predictions.rollouts.append(rollout)
            if row.scores:
                verdicts = read_verdicts(row.predict, predictions.tasks, predictions.format)
                scores[record_id] = scores_of_verdicts(row.scores, verdicts)
            continue
        if record != known[record_id]:
            raise InputError(
                f"{where}: another record than row {index + 1} of the folder of the first output",
                "folders with numbers as names hold the outputs of one run on the same records",
            )
        if record_id in found:
            raise InputError(f"{where}: record id {record_id!r} occurs twice; ids must be unique")
        found.add(record_id)
        predictions.more_rollouts.append(rollout)
    hard_samples = origin.file.with_name(HARD_SAMPLES)
    if origin.file.name == PREDICTIONS and hard_samples.exists():
        _read_hard_samples(hard_samples, origin.benchmark, predictions)
    return any(row.record_id is not None for _, row in rows)


def _record(row: _PredictionRow, record_id: str, benchmark: str, tasks: Sequence[Task], where: str) -> Record:
    """Return the record of a row; its messages are those in the row or, for one turn, in the text of the prompt."""
    require_policy_and_extra(row.policy, row.extra, where)
    messages: tuple[Message, ...]
    if row.messages is not None:
        messages = messages_of(row.messages, f"{where}: messages")
    else:
        messages = Record("", *split_prompt(row.prompt, tasks, where)).messages
    response = messages[-1].content if messages[-1].role == "assistant" else None
    labels = gold_labels(row.label, response, tasks, where) if row.labels is None else row.labels
    _require_labels(labels, tasks, where)
    return Record(
        record_id,
        labels=labels,
        source=benchmark,
        messages=messages,
        policy=row.policy,
        language=row.language,
        extra=row.extra,
    )


def _prediction_rows(file: Path) -> Iterator[tuple[str, _PredictionRow]]:
    """Yield (file:line, row) for each row of a JSONL file or a JSON list."""
    if file_format(file) != ".json":
        for line, values in read_jsonl(file):
            yield f"{file}:{line}", _validated(_PREDICTION_ROWS, values, f"{file}:{line}")
        return
    for row in read_file_rows(file):
        where = f"{file}:{row.location}"
        if row.values is None:
            raise InputError(f"{where}: {row.fault}")
        yield where, _validated(_PREDICTION_ROWS, row.values, where)


def _rows_of_other_tools(
    file: Path, rows: Sequence[tuple[str, _PredictionRow]], predictions: Predictions
) -> list[tuple[str, _PredictionRow]]:
    """Return rows without chat template and end tokens, and note what was removed; our own rows have neither.

    Raises:
        InputError: every prompt ends with text of an unknown template.
    """
    if not rows or any(row.record_id is not None for _, row in rows):
        return list(rows)
    prompts = [row.prompt for _, row in rows]
    template = chat_template_around(prompts, _USER)
    if template is not None:
        prompts = [without_template(prompt, template) for prompt in prompts]
        predictions.notes.append(f"{file}: the chat template of {template.name} around the prompts was removed")
    elif (end := unknown_end(prompts, _ASSISTANT)) is not None:
        known = ", ".join(dict.fromkeys(template.name for template in CHAT_TEMPLATES))
        raise InputError(
            f"{file}: every prompt ends with text that is not the conversation: {end!r}",
            f"expected the released layout, alone or in the chat template of {known}",
        )
    outputs = [strip_end_tokens(row.predict) for _, row in rows]
    stripped = sum(output != row.predict for output, (_, row) in zip(outputs, rows, strict=True))
    if stripped:
        predictions.notes.append(f"{file}: an end token was removed from {stripped} of {len(rows)} outputs")
    return [
        (where, replace(row, prompt=prompt, predict=output))
        for (where, row), prompt, output in zip(rows, prompts, outputs, strict=True)
    ]


def _read_hard_samples(file: Path, benchmark: str, predictions: Predictions) -> None:
    file_fingerprint = _fingerprint(file)
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
            Rollout(record_id, predictions.model, file_fingerprint, row.index, row.seed, row.predict)
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
