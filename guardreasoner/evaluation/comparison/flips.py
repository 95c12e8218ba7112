"""Records that one run has right and another wrong: how many, which, and whether chance alone would do it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guardreasoner.evaluation.scoring.outcomes import NONE, BenchmarkLabels, Mode
from guardreasoner.tasks import Task

Seeds = Sequence[BenchmarkLabels]
"""One run's outcomes on one benchmark, for each of its training seeds."""


@dataclass(frozen=True, slots=True)
class Flips:
    """How two runs differ, record by record.

    With several seeds, a run has a record right when more than half of its seeds have, and wrong when less than half
    have. There is no p then: what several models of one run say of a record are no independent observations.

    Args:
        gained: records that the first run has wrong and the second right.
        lost: the opposite.
        left_out: records for which one of the runs has no verdict, where the mode leaves those out.
        p: of McNemar's exact test.
    """

    gained: int
    lost: int
    left_out: int
    p: float | None


@dataclass(frozen=True, slots=True)
class Flip:
    """One task of a record that flips.

    Args:
        record_id: the record.
        benchmark: where it is from.
        task: name of the task.
        gold: its label.
        verdicts: by run, what each of its seeds says; None for no verdict.
        gained: whether it is the second run that is right.
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
        gained: pairs in which only the second is right.
        lost: pairs in which only the first is right; both 0 give 1.
    """
    discordant = gained + lost
    term = tail = 1
    for number in range(min(gained, lost)):
        term = term * (discordant - number) // (number + 1)  # the next binomial coefficient, in whole numbers
        tail += term
    return min(1.0, 2 * tail / 2**discordant)


def count_flips(first: Sequence[Seeds], second: Sequence[Seeds], task: int | None, mode: Mode) -> Flips:
    """Count how two runs differ.

    Args:
        first: one run's outcomes, by benchmark.
        second: the other's, of the same benchmarks and records.
        task: column of the task; None: a record is right when all its tasks are.
        mode: what an answer without a verdict is.
    """
    one, other = (np.concatenate([_lead(seeds, task, mode) for seeds in run]) for run in (first, second))
    gained, lost = int(((one < 0) & (other > 0)).sum()), int(((one > 0) & (other < 0)).sum())
    alone = all(len(seeds) == 1 for seeds in (*first, *second))
    left_out = int((np.isnan(one) | np.isnan(other)).sum()) - _unlabelled(first, task)
    return Flips(gained, lost, left_out, mcnemar(gained, lost) if alone else None)


def list_flips(
    names: tuple[str, str], first: Sequence[Seeds], second: Sequence[Seeds], tasks: Sequence[Task], mode: Mode
) -> Iterator[Flip]:
    """Yield each task of each record that flips, by benchmark.

    Args:
        names: of the two runs.
        first: one run's outcomes, by benchmark.
        second: the other's, of the same benchmarks and records.
        tasks: what was answered.
        mode: what an answer without a verdict is.
    """
    for a, b in zip(first, second, strict=True):
        for place, task in enumerate(tasks):
            one, other = _lead(a, place, mode), _lead(b, place, mode)
            for row in map(int, np.flatnonzero(one * other < 0)):
                verdicts = {
                    name: tuple(_word(outcomes.found[row, place], task) for outcomes in seeds)
                    for name, seeds in zip(names, (a, b), strict=True)
                }
                gold = task.labels[a[0].gold[row, place]]
                yield Flip(a[0].ids[row], a[0].benchmark, task.name, gold, verdicts, bool(other[row] > 0))


def _lead(seeds: Seeds, task: int | None, mode: Mode) -> NDArray[np.float64]:
    """Return (N,) by how much more of the seeds are right than wrong; NaN where none counts or there is no label."""
    votes = []
    for outcomes in seeds:
        if task is None:
            right, unparsed, labelled = outcomes.right(), outcomes.unparsed(), np.ones(len(outcomes.ids), bool)
        else:
            gold, found = outcomes.gold[:, task], outcomes.found[:, task]
            right, unparsed, labelled = gold == found, found == NONE, gold != NONE
        counts = labelled & ~unparsed if mode == "drop" else labelled
        votes.append(np.where(counts, np.where(right, 1.0, -1.0), np.nan))
    cast = np.stack(votes)
    nobody = np.isnan(cast).all(axis=0)
    return np.where(nobody, np.nan, np.nansum(cast, axis=0))


def _unlabelled(run: Sequence[Seeds], task: int | None) -> int:
    return 0 if task is None else sum(int((seeds[0].gold[:, task] == NONE).sum()) for seeds in run)


def _word(place: int, task: Task) -> str | None:
    return None if place == NONE else task.labels[place]
