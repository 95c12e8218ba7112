"""The records that several models answered: the same ones, or those that all of them have."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Rollout

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Answers:
    """What one trained model answered: one output a record, and any number for each hard record.

    Args:
        name: of the model, for messages.
        records: with gold labels.
        rollouts: an output for each.
        hard_records: the hard set.
        hard_rollouts: outputs for it.
    """

    name: str
    records: Sequence[Record]
    rollouts: Sequence[Rollout]
    hard_records: Sequence[Record] = ()
    hard_rollouts: Sequence[Rollout] = ()


@dataclass(frozen=True, slots=True)
class Aligned:
    """Answers to the same records, in the same order.

    Args:
        files: what was given, less the records that some of them lack.
        left_out: by name, how many of its records are not in all.
        hard_left_out: the same for hard records.
        without_hard: names of those without outputs for hard records; one of them, and none are compared.
    """

    files: tuple[Answers, ...]
    left_out: Mapping[str, int]
    hard_left_out: Mapping[str, int]
    without_hard: tuple[str, ...]


def align(files: Sequence[Answers], intersect: bool = False) -> Aligned:
    """Bring answers to the same records.

    Args:
        files: of each model, under different names.
        intersect: keep the records that all have, instead of refusing where some lack records.

    Raises:
        InputError: the records are not the same (with ``intersect``: none is), or one id stands for different ones.
    """
    records = _shared("records", {one.name: one.records for one in files}, intersect)
    without_hard = tuple(one.name for one in files if not one.hard_rollouts)
    sets = {one.name: [] if without_hard else _sampled(one) for one in files}
    hard = _shared("hard records", sets, intersect) if not without_hard else ()
    kept, hard_kept = ({record.id for record in some} for some in (records, hard))
    return Aligned(
        tuple(
            Answers(
                one.name,
                records,
                [answer for answer in one.rollouts if answer.record_id in kept],
                hard,
                [answer for answer in one.hard_rollouts if answer.record_id in hard_kept],
            )
            for one in files
        ),
        {one.name: len(one.records) - len(records) for one in files},
        {name: len(some) - len(hard) for name, some in sets.items()},
        without_hard,
    )


def differing(one: Iterable[Record], other: Iterable[Record]) -> list[str]:
    """Return the ids that two sets of records share and that stand for other conversations or labels in each."""
    known = {record.id: record for record in one}
    return [record.id for record in other if record.id in known and _unlike(record, known[record.id])]


def lacking(sets: Mapping[str, Sequence[Record]]) -> dict[str, Counter[str]]:
    """Return, for each name that lacks records which others have, how many by benchmark."""
    everything = {record.id: record for records in sets.values() for record in records}
    absent = {name: everything.keys() - {record.id for record in records} for name, records in sets.items()}
    return {name: Counter(everything[one].source for one in sorted(ids)) for name, ids in absent.items() if ids}


def described_lack(absent: Mapping[str, Counter[str]]) -> str:
    """Return in words what each name lacks: "A lacks 3 (x 2, y 1), B lacks 1 (z 1)"."""
    return ", ".join(f"{name} lacks {counts.total()} ({_benchmarks(counts)})" for name, counts in absent.items())


def _sampled(one: Answers) -> list[Record]:
    answered = {answer.record_id for answer in one.hard_rollouts}
    return [record for record in one.hard_records if record.id in answered]


def _shared(what: str, sets: Mapping[str, Sequence[Record]], intersect: bool) -> Sequence[Record]:
    (first, records), *others = sets.items()
    for name, other in others:
        if unlike := differing(records, other):
            raise InputError(
                f"{first} and {name}: {len(unlike)} {what} are others under the same id, the first is {unlike[0]!r}",
                "rows without record_id are known by their place, which reordered, missing or repeated rows shift",
            )
    absent = lacking(sets)
    shared = set.intersection(*({record.id for record in some} for some in sets.values()))
    if absent and not (intersect and shared):
        asked = f"--intersect compares them on the {len(shared)} that all have" if shared else None
        raise InputError(f"the runs did not answer the same {what}: {described_lack(absent)}", asked)
    return [record for record in records if record.id in shared]


def _unlike(one: Record, other: Record) -> bool:
    # Of a record that was only sampled, the conversation is not in the files.
    conversations = [(record.prompt, record.response) for record in (one, other) if record.prompt]
    return len(set(conversations)) > 1 or one.gold() != other.gold() or one.source != other.source


def _benchmarks(counts: Counter[str]) -> str:
    most = [f"{name} {count}" for name, count in counts.most_common(_NAMED)]
    return ", ".join([*most, f"{len(counts) - _NAMED} more"] if len(counts) > _NAMED else most)
