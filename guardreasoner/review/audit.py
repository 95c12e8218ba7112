"""Read an audit file, as ``pairs --audit`` writes it, as labels for a person to decide on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from guardreasoner.errors import InputError
from guardreasoner.records import Record, record_of
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.review.items import ReviewItem, ReviewSet, ShownAnswer
from guardreasoner.review.ratings import SLOTS, LabelQuestion, conversation_hash, text_hash
from guardreasoner.sources.validation import validation_message


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _Reasoning:
    model: str
    index: StrictInt
    seed: StrictInt
    completion: str


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _AuditRow:
    record_id: str
    task: str
    label: str
    verdict: str
    outputs: PositiveInt
    unparsed: NonNegativeInt
    agreement: Annotated[StrictFloat, Field(ge=0, le=1)]
    models: Sequence[str]
    record: Mapping[str, Any]
    reasonings: Annotated[tuple[_Reasoning, ...], Field(min_length=1, max_length=len(SLOTS))]


_ROWS = TypeAdapter(_AuditRow)
_EXPECTED = "expected a file that pairs --audit wrote"


def read_audit(path: Path, sample: int | None = None) -> ReviewSet:
    """Return the labels of an audit file to decide on, in the order of the file.

    Args:
        path: the file.
        sample: number of labels, the first ones; None for all.

    Raises:
        InputError: the file is missing or has no label, a line is invalid or contradicts its record (file:line), a
            label occurs twice, or the sample is larger than the number of labels.
    """
    items: dict[tuple[str, str], ReviewItem] = {}
    for line, values in read_jsonl(path):
        where = f"{path}:{line}"
        try:
            row = _ROWS.validate_python(values)
        except ValidationError as error:
            message = validation_message(error)
            raise InputError(f"{where}: {message}", _EXPECTED) from None
        record = record_of(row.record, f"{where}: record")
        _require_consistent(row, record, where)
        item = _item(len(items) + 1, record, row)
        if item.subject in items:
            raise InputError(f"{where}: the {row.task} label of record {record.id!r} occurs twice")
        items[item.subject] = item
    if not items:
        raise InputError(f"{path}: the file has no label to decide on")
    if sample is not None and sample > len(items):
        raise InputError(f"review: --sample {sample}: there are {len(items)} labels")
    shown = tuple(items.values())[:sample]
    not_sampled = frozenset(record_id for record_id, _ in items) - {item.record.id for item in shown}
    return ReviewSet((), (), shown, {}, not_sampled)


def _require_consistent(row: _AuditRow, record: Record, where: str) -> None:
    fault = None
    if row.record_id != record.id:
        fault = f"record_id: {row.record_id!r} is not the id of the record, {record.id!r}"
    elif record.labels.get(row.task) is None:
        fault = f"task: the record has no gold label for {row.task!r}"
    elif row.label != record.labels[row.task]:
        fault = f"label: {row.label!r} is not the record's gold label, {record.labels[row.task]!r}"
    elif row.verdict == row.label:
        fault = f"verdict: {row.verdict!r} does not contradict the label"
    if fault is not None:
        raise InputError(f"{where}: {fault}", _EXPECTED)


def _item(number: int, record: Record, row: _AuditRow) -> ReviewItem:
    answers = tuple(
        ShownAnswer(
            slot,
            f"{reasoning.model}/{reasoning.seed}/{reasoning.index}",
            reasoning.completion,
            {row.task: row.verdict},
            text_hash(reasoning.completion),
        )
        for slot, reasoning in zip(SLOTS, row.reasonings, strict=False)
    )
    models = f"{len(row.models):,} model{'' if len(row.models) == 1 else 's'}"
    unparsed = f"; {row.unparsed:,} more have no verdict" if row.unparsed else ""
    evidence = f"All {row.outputs:,} outputs of {models} with a verdict say {row.verdict}{unparsed}."
    question = LabelQuestion(row.task, row.label, row.verdict)
    return ReviewItem(number, record, conversation_hash(record), answers, question=question, evidence=evidence)
