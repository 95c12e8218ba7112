"""Flips: records that one run gets right and another wrong, with the exact McNemar test."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guardreasoner.evaluation.scoring.labels import NO_LABEL, BenchmarkLabels, Mode, label_name
from guardreasoner.tasks import Task

SeedLabels = Sequence[BenchmarkLabels]
"""Labels of one run on one benchmark, one item for each training seed."""


@dataclass(frozen=True, slots=True)
class Flips:
    """Number of records that flip between two runs.

    With several seeds, a run has a record right if more than half of its seeds have, and wrong if less than half have.
    Then there is no p value: the answers of several seeds to one record are not independent.

    Args:
        gained: records that the first run has wrong and the second right.
        lost: records that the first run has right and the second wrong.
        left_out: records without a verdict of one of the runs, in a mode that leaves these out.
        p: two-sided p value of the exact McNemar test; None with several seeds.
    """

    gained: int
    lost: int
    left_out: int
    p: float | None


@dataclass(frozen=True, slots=True)
class Flip:
    """One task of one record that flips.

    Args:
        record_id: id of the record.
        benchmark: source of the record.
        task: name of the task.
        gold: gold label.
        verdicts: by run, the verdict of each of its seeds; None for no verdict.
        gained: whether the second run has it right.
    """

    record_id: str
    benchmark: str
    task: str
    gold: str
    verdicts: Mapping[str, tuple[str | None, ...]]
    gained: bool


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p of the exact McNemar test: min(1, 2 · P(X ≤ min(gained, lost))), X ~ B(gained + lost, ½).

    Args:
        gained: number of pairs in which only the second is right.
        lost: number of pairs in which only the first is right; if both are 0, p is 1.
    """
    discordant = gained + lost
    binomial = tail = 1  # integers: exact, and no overflow
    for k in range(min(gained, lost)):
        binomial = binomial * (discordant - k) // (k + 1)
        tail += binomial
    return min(1.0, 2 * tail / 2**discordant)


def count_flips(first: Sequence[SeedLabels], second: Sequence[SeedLabels], column: int | None, mode: Mode) -> Flips:
    """Count the records that flip between two runs.

    Args:
        first: labels of the first run, by benchmark.
        second: labels of the second run, of the same benchmarks and records.
        column: column of the task; None: a record is right if all its tasks are.
        mode: how unparsed answers count.
    """
    lead_first, lead_second = (np.concatenate([_lead(seeds, column, mode) for seeds in run]) for run in (first, second))
    gained = int(((lead_first < 0) & (lead_second > 0)).sum())
    lost = int(((lead_first > 0) & (lead_second < 0)).sum())
    left_out = int((np.isnan(lead_first) | np.isnan(lead_second)).sum()) - _count_unlabelled(first, column)
    single_seed = all(len(seeds) == 1 for seeds in (*first, *second))
    return Flips(gained, lost, left_out, mcnemar(gained, lost) if single_seed else None)


def list_flips(
    names: tuple[str, str],
    first: Sequence[SeedLabels],
    second: Sequence[SeedLabels],
    tasks: Sequence[Task],
    mode: Mode,
) -> Iterator[Flip]:
    """Yield each task of each record that flips, by benchmark and task.

    Args:
        names: names of the two runs.
        first: labels of the first run, by benchmark.
        second: labels of the second run, of the same benchmarks and records.
        tasks: tasks to score.
        mode: how unparsed answers count.
    """
    for first_seeds, second_seeds in zip(first, second, strict=True):
        labels = first_seeds[0]
        for column, task in enumerate(tasks):
            lead_first, lead_second = _lead(first_seeds, column, mode), _lead(second_seeds, column, mode)
            for row in map(int, np.flatnonzero(lead_first * lead_second < 0)):
                verdicts = {
                    name: tuple(label_name(one.predicted[row, column], task) for one in seeds)
                    for name, seeds in zip(names, (first_seeds, second_seeds), strict=True)
                }
                gold = task.labels[labels.gold[row, column]]
                yield Flip(labels.ids[row], labels.benchmark, task.name, gold, verdicts, bool(lead_second[row] > 0))


def _lead(seeds: SeedLabels, column: int | None, mode: Mode) -> NDArray[np.float64]:
    """Return (N,) number of right seeds minus number of wrong seeds; NaN if no seed counts or there is no label."""
    votes = []
    for labels in seeds:
        if column is None:
            correct, unparsed, labelled = labels.correct(), labels.unparsed(), np.ones(len(labels.ids), bool)
        else:
            gold, predicted = labels.gold[:, column], labels.predicted[:, column]
            correct, unparsed, labelled = gold == predicted, predicted == NO_LABEL, gold != NO_LABEL
        counted = labelled & ~unparsed if mode == "drop" else labelled
        votes.append(np.where(counted, np.where(correct, 1.0, -1.0), np.nan))
    stacked = np.stack(votes)
    return np.where(np.isnan(stacked).all(axis=0), np.nan, np.nansum(stacked, axis=0))


def _count_unlabelled(run: Sequence[SeedLabels], column: int | None) -> int:
    return 0 if column is None else sum(int((seeds[0].gold[:, column] == NO_LABEL).sum()) for seeds in run)
