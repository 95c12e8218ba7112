"""Restrict the answers of several models to the same records."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.records import Record, Rollout

_MAX_NAMED = 3
"""Benchmarks named in a message."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of one trained model: one output a record, and any number of outputs for each hard record.

    Args:
        name: name of the model, for messages.
        records: records with gold labels.
        rollouts: one output for each record.
        hard_records: the hard set.
        hard_rollouts: outputs for the hard set.
        format: format of the outputs; None: GuardReasoner's own.
    """

    name: str
    records: Sequence[Record]
    rollouts: Sequence[Rollout]
    hard_records: Sequence[Record] = ()
    hard_rollouts: Sequence[Rollout] = ()
    format: GuardFormat | None = None


@dataclass(frozen=True, slots=True)
class Aligned:
    """Answers of several models to the same records, in the same order.

    Args:
        files: the given answers, restricted to the shared records.
        left_out: by name, number of records that are not shared by all models.
        hard_left_out: the same for hard records.
        without_hard: names of the models without outputs for hard records; if there is one, no model is compared on
            hard records.
    """

    files: tuple[Answers, ...]
    left_out: Mapping[str, int]
    hard_left_out: Mapping[str, int]
    without_hard: tuple[str, ...]


def align(files: Sequence[Answers], intersect: bool = False) -> Aligned:
    """Restrict answers to the records that all models share.

    Args:
        files: answers of each model, with distinct names.
        intersect: whether to use the shared records if some models lack records; otherwise that is an error.

    Raises:
        InputError: if the models answered different records (with ``intersect``: if they share none), or if one id
            stands for different records.
    """
    records = _shared("records", {answers.name: answers.records for answers in files}, intersect)
    without_hard = tuple(answers.name for answers in files if not answers.hard_rollouts)
    hard_sets = {answers.name: [] if without_hard else _sampled_records(answers) for answers in files}
    hard = _shared("hard records", hard_sets, intersect) if not without_hard else ()
    ids, hard_ids = ({record.id for record in shared} for shared in (records, hard))
    return Aligned(
        tuple(
            Answers(
                answers.name,
                records,
                [rollout for rollout in answers.rollouts if rollout.record_id in ids],
                hard,
                [rollout for rollout in answers.hard_rollouts if rollout.record_id in hard_ids],
                answers.format,
            )
            for answers in files
        ),
        {answers.name: len(answers.records) - len(records) for answers in files},
        {name: len(hard_set) - len(hard) for name, hard_set in hard_sets.items()},
        without_hard,
    )


def differing_ids(first: Iterable[Record], second: Iterable[Record]) -> list[str]:
    """Return the ids that occur in both sets of records with different conversations, labels or benchmarks."""
    by_id = {record.id: record for record in first}
    return [record.id for record in second if record.id in by_id and _differ(record, by_id[record.id])]


def missing_records(sets: Mapping[str, Sequence[Record]]) -> dict[str, Counter[str]]:
    """Return, for each name that lacks records of another name, the number of missing records by benchmark."""
    all_records = {record.id: record for records in sets.values() for record in records}
    missing = {name: all_records.keys() - {record.id for record in records} for name, records in sets.items()}
    return {
        name: Counter(all_records[record_id].source for record_id in sorted(ids))
        for name, ids in missing.items()
        if ids
    }


def describe_missing(missing: Mapping[str, Counter[str]]) -> str:
    """Describe the result of :func:`missing_records`: "A lacks 3 (x 2, y 1), B lacks 1 (z 1)"."""
    return ", ".join(f"{name} lacks {counts.total()} ({_benchmarks(counts)})" for name, counts in missing.items())


def _sampled_records(answers: Answers) -> list[Record]:
    sampled = {rollout.record_id for rollout in answers.hard_rollouts}
    return [record for record in answers.hard_records if record.id in sampled]


def _shared(what: str, sets: Mapping[str, Sequence[Record]], intersect: bool) -> Sequence[Record]:
    (first, records), *others = sets.items()
    for name, other_records in others:
        if differing := differing_ids(records, other_records):
            raise InputError(
                f"{first} and {name}: {len(differing)} {what} differ under the same id, the first is {differing[0]!r}",
                "rows without record_id are matched by position, which reordered, missing or repeated rows shift",
            )
    missing = missing_records(sets)
    shared_ids = set.intersection(*({record.id for record in some} for some in sets.values()))
    if missing and not (intersect and shared_ids):
        hint = f"--intersect compares them on the {len(shared_ids)} that all have" if shared_ids else None
        raise InputError(f"the runs did not answer the same {what}: {describe_missing(missing)}", hint)
    return [record for record in records if record.id in shared_ids]


def _differ(first: Record, second: Record) -> bool:
    # A file of hard samples holds no conversation: it is compared only where both records have one.
    conversations = [record.content_key() for record in (first, second) if record.prompt]
    return len(set(conversations)) > 1 or first.gold() != second.gold() or first.source != second.source


def _benchmarks(counts: Counter[str]) -> str:
    most_common = [f"{name} {count}" for name, count in counts.most_common(_MAX_NAMED)]
    rest = len(counts) - _MAX_NAMED
    return ", ".join([*most_common, f"{rest} more"] if rest > 0 else most_common)
