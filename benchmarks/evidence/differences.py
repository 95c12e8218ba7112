"""Differences between arms, paired over seeds and records, with intervals and Holm-corrected p-values.

A resample draws the tested records once for all arms and seeds, and the seeds once for all arms. So each difference is
taken between models of one seed on the same records, the records of all seeds move together, and both sources of chance
are in the interval. A bootstrap of a few seeds is too narrow. Therefore the deviation of the seeds' weights from equal
weights is widened by √(S / (S − 1)) · t / z, with t and z the 97.5th percentiles of Student's distribution with S − 1
degrees of freedom and of the normal one. If only the seeds varied, the interval would be about that of a paired t-test.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from evidence.results import NOT_HARD, Result
from evidence.study import Figure
from guardreasoner.errors import InputError
from guardreasoner.evaluation.intervals import (
    RESAMPLES,
    Estimate,
    estimate,
    generator_for,
    resampled_seeds,
    resampled_sums,
)

Array = NDArray[np.float64]
FIGURES: tuple[Figure, ...] = ("hard", "all")


@dataclass(frozen=True)
class Difference:
    """One arm minus another.

    Args:
        seeds: Seeds that both have.
        points: Mean over the seeds in percentage points, with its 95 % interval.
        by_seed: The difference of each seed.
        p: Two-sided p-value of no difference, from the same resamples; NaN without resamples.
    """

    seeds: tuple[int, ...]
    points: Estimate
    by_seed: tuple[float, ...]
    p: float


class Accuracies:
    """Accuracies of all results of one data set, in the same resamples of its records.

    Args:
        results: Results of one data set.
        resamples: Number of bootstrap resamples.

    Raises:
        InputError: Two results have other records, or other hard records with one seed.
    """

    def __init__(self, results: Sequence[Result], resamples: int = RESAMPLES) -> None:
        _require_comparable(results)
        self.resamples = resamples
        columns: list[Array] = []
        for result in results:
            is_hard = np.array([mark != NOT_HARD for mark in result.hard])
            shares = np.array([0 if mark == NOT_HARD else int(mark) for mark in result.hard]) / result.outputs
            columns += [np.array([mark == "1" for mark in result.right]), shares, is_hard]
        count = len(results[0].right)
        groups = np.array(results[0].groups or range(count))
        by_group = np.zeros((groups.max() + 1, len(columns) + 1))
        np.add.at(by_group, groups, np.column_stack([*columns, np.ones(count)]).astype(np.float64))
        sums = resampled_sums(by_group, resamples, generator_for(0, "records"))
        self.by_figure: dict[Figure, dict[tuple[str, int], Array]] = {"hard": {}, "all": {}}
        for number, result in enumerate(results):
            right, share, hard = sums[:, 3 * number : 3 * number + 3].T
            self.by_figure["all"][result.arm, result.seed] = 100 * right / sums[:, -1]
            with np.errstate(invalid="ignore"):
                self.by_figure["hard"][result.arm, result.seed] = 100 * share / hard

    def difference(self, better: str, than: str, figure: Figure) -> Difference | None:
        """Return the first arm minus the second on their shared seeds; None if they share none."""
        found = self.by_figure[figure]
        seeds = sorted({seed for arm, seed in found if arm == better} & {seed for arm, seed in found if arm == than})
        if not seeds:
            return None
        by_seed = np.column_stack([found[better, seed] - found[than, seed] for seed in seeds])
        values = (widened(seeds, self.resamples) * by_seed).sum(axis=1)
        resampled = values[1:][~np.isnan(values[1:])]
        tails = [(1 + (resampled <= 0).sum()), (1 + (resampled >= 0).sum())]
        p = min(1.0, 2 * min(tails) / (1 + len(resampled))) if len(resampled) else float("nan")
        return Difference(tuple(seeds), estimate(values), tuple(map(float, by_seed[0])), p)


def widened(seeds: Collection[int], resamples: int) -> Array:
    """Return the weight of each seed in each resample, (1 + resamples, seeds); see the module."""
    from scipy.stats import norm, t

    count = len(seeds)
    if count == 1:
        return np.ones((1 + resamples, 1))
    factor = sqrt(count / (count - 1)) * t.ppf(0.975, count - 1) / norm.ppf(0.975)
    weights = resampled_seeds(count, resamples, generator_for(0, "seeds"))
    return 1 / count + factor * (weights - 1 / count)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number (Holm, 1979): ascending, each times how many are left."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, (name, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p) - rank) * value))
        corrected[name] = largest
    return corrected


def _require_comparable(results: Sequence[Result]) -> None:
    first: dict[int, Result] = {}
    for result in results:
        for other in (results[0], first.setdefault(result.seed, result)):
            names = f"{other.data}: {other.arm}-{other.seed}.json and {result.arm}-{result.seed}.json"
            if (result.records, len(result.right)) != (other.records, len(other.right)):
                raise InputError(f"{names}: different records were tested", "run the study again")
            same_seed = result.seed == other.seed
            marks = [[mark == NOT_HARD for mark in one.hard] for one in (result, other)]
            if same_seed and marks[0] != marks[1]:
                raise InputError(f"{names}: the hard records differ", "run the study again: their R-SFT models differ")
