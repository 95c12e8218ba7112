"""What attacks change: answers on attacked records beside those on the same records as they are. numpy only.

A pair is one record, judged without and with an attack. Per family and task: F1 of the positive label before and after,
with the drop; how many positive verdicts turned into another label; how many answers became unparsable. An unparsable
answer counts once, as wrong, as in :mod:`guardreasoner.evaluation.scoring`'s strict mode.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import origin
from guardreasoner.evaluation.shares import Share
from guardreasoner.prompts import Verdicts, parse
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import Task

ALL = "all"
"""Name of the row over all benchmarks."""

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class FamilyScore:
    """One family of attacks on one task of one benchmark, or of all of them together.

    Args:
        family: its name.
        benchmark: source of the original records; "all" over several, their records counted together.
        task: name of the task.
        positive: the label whose F1 is given.
        n: attacked records with a gold label for the task.
        before: F1 on their originals, in percent; None where no record has the positive label.
        after: F1 on the attacked records, in percent.
        drop: before − after, in points.
        drop_interval: 95 % interval of the drop, by bootstrap over the pairs.
        turned: of the records judged positive before, those judged another label after.
        unparsed_before: answers without a verdict on the originals.
        unparsed_after: answers without a verdict on the attacked records.
    """

    family: str
    benchmark: str
    task: str
    positive: str
    n: int
    before: float | None
    after: float | None
    drop: float | None
    drop_interval: tuple[float, float] | None
    turned: Share
    unparsed_before: int
    unparsed_after: int


@dataclass(frozen=True, slots=True)
class _Pair:
    original: Record
    before: Verdicts
    after: Verdicts


def robustness(
    records: Sequence[Record], answers: Iterable[Rollout], tasks: Sequence[Task], seed: int = 0
) -> tuple[FamilyScore, ...]:
    """Compare answers on attacked records with those on their originals.

    Args:
        records: originals and attacked ones, with gold labels. Originals that nobody attacked count for nothing.
        answers: one output for each of them, in any order.
        tasks: what may be answered.
        seed: of the bootstrap.

    Returns:
        A score per family and task over all benchmarks and, where there are several, one per benchmark.

    Raises:
        InputError: no attacked record, one without its original or with other gold labels, or a record without an
            answer.
    """
    pairs = _pairs(records, answers, tasks)
    scores = []
    for family, found in pairs.items():
        by_benchmark = defaultdict(list)
        for pair in found:
            by_benchmark[pair.original.source].append(pair)
        groups = {ALL: found, **(by_benchmark if len(by_benchmark) > 1 else {})}
        for benchmark, group in groups.items():
            scores += [one for task in tasks if (one := _score(family, benchmark, task, group, seed)) is not None]
    return tuple(scores)


def _pairs(records: Sequence[Record], answers: Iterable[Rollout], tasks: Sequence[Task]) -> dict[str, list[_Pair]]:
    known = {record.id: record for record in records}
    completions = {answer.record_id: answer.completion for answer in answers}
    pairs: dict[str, list[_Pair]] = defaultdict(list)
    for record in records:
        if (attack := origin(record)) is None:
            continue
        identity, family = attack
        original = known.get(identity)
        if original is None:
            raise InputError(f"record {record.id!r} is attacked, and its original {identity!r} is not here")
        if original.gold() != record.gold():
            raise InputError(f"record {record.id!r} has other gold labels than its original {identity!r}")
        if absent := next((one for one in (identity, record.id) if one not in completions), None):
            raise InputError(f"no answer for record {absent!r}")
        before, after = (parse(completions[one], tasks) for one in (identity, record.id))
        pairs[family].append(_Pair(original, before, after))
    if not pairs:
        raise InputError(
            f"none of {len(records)} records is attacked",
            "python -m guardreasoner test --config configs/robustness.yaml writes answers on attacked records",
        )
    return pairs


def _score(family: str, benchmark: str, task: Task, pairs: Sequence[_Pair], seed: int) -> FamilyScore | None:
    judged = [pair for pair in pairs if pair.original.labels.get(task.name) is not None]
    if not judged:
        return None
    before = [pair.before.get(task.name) for pair in judged]
    after = [pair.after.get(task.name) for pair in judged]
    counts = np.hstack([_counts(judged, before, task), _counts(judged, after, task)])
    points = _f1(counts.sum(axis=0, keepdims=True))[0]
    known = bool(np.isfinite(points).all())
    was_positive = [now for then, now in zip(before, after, strict=True) if then == task.positive]
    return FamilyScore(
        family=family,
        benchmark=benchmark,
        task=task.name,
        positive=task.positive,
        n=len(judged),
        before=float(points[0]) if known else None,
        after=float(points[1]) if known else None,
        drop=float(points[0] - points[1]) if known else None,
        drop_interval=_drop_interval(counts, seed) if known else None,
        turned=Share(sum(now not in (None, task.positive) for now in was_positive), len(was_positive)),
        unparsed_before=before.count(None),
        unparsed_after=after.count(None),
    )


def _counts(pairs: Sequence[_Pair], found: Sequence[str | None], task: Task) -> NDArray[np.float64]:
    """Return what each record adds to true positives, missed ones and wrong claims of the positive label, (N, 3)."""
    gold = np.array([pair.original.labels[task.name] == task.positive for pair in pairs])
    claimed = np.array([word == task.positive for word in found])
    unparsed = np.array([word is None for word in found])
    wrongly = ~gold * (claimed + unparsed / (len(task.labels) - 1))
    return np.stack([gold & claimed, gold & ~claimed, wrongly], axis=1).astype(np.float64)


def _f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F1 before and after, in percent, (B, 2), from summed counts (B, 6); nan without a positive record."""
    hit, missed, claimed = (counts[:, [column, column + 3]] for column in range(3))
    with np.errstate(invalid="ignore"):
        return np.where(hit + missed > 0, 200 * hit / (2 * hit + missed + claimed), np.nan)


def _drop_interval(counts: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of the drop when the records are drawn anew, with replacement.

    Records that count alike are interchangeable, so what is drawn is how many there are of each kind: one multinomial
    draw over a handful of kinds, whatever the number of records.
    """
    kinds, sizes = np.unique(counts, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(sizes.sum(), sizes / sizes.sum(), size=RESAMPLES)
    values = _f1(drawn @ kinds)
    drops = values[:, 0] - values[:, 1]
    low, high = np.percentile(drops[np.isfinite(drops)], (2.5, 97.5))
    return float(low), float(high)
