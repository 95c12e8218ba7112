"""Differences between arms, paired over seeds and records, with intervals and Holm-corrected p-values.

A difference is taken between models of one seed on the same records, then averaged over the seeds. Two sources of
chance are in its standard error:

- the records: the variance of the mean over resamples of the records, drawn once for all arms and seeds, so that the
  records of all seeds move together;
- the seeds: s² / S.

The squared standard error is their sum. Chance that differs by seed and record is in both, so it errs on the large
side. Interval and p-value come from Student's distribution with Welch and Satterthwaite's degrees of freedom, where the
records' variance counts as known: S − 1 if only the seeds vary, as in a paired t-test, and more otherwise. In
simulations, the interval held the true difference in 94 to 98 % of the cases with four or five seeds, in 92 to 97 %
with three, and in 87 to 97 % with two, whose s² is too uncertain: no claim is decided by fewer than three. A bootstrap
over the seeds would be too narrow for so few, above all in the tails that a correction for many comparisons needs.

With one seed, the interval is the percentile interval over the resampled records. With fewer than three, there is no
p-value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan, sqrt
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from evidence.results import NOT_HARD, UNPARSED, Result
from evidence.study import Figure
from guardreasoner.errors import InputError
from guardreasoner.evaluation.intervals import RESAMPLES, Estimate, estimate, generator_for

Array = NDArray[np.float64]
FIGURES: tuple[Figure, ...] = ("hard", "all")
"""The accuracies that all arms are compared by."""
MIN_SEEDS = 3
"""Seeds that a claim and a p-value need."""


@dataclass(frozen=True)
class Difference:
    """One arm minus another, or one arm alone.

    Args:
        seeds: Seeds that both have.
        points: Mean over the seeds in percentage points, with its 95 % interval.
        by_seed: The difference of each seed.
        p: Two-sided p-value of no difference; NaN for fewer than ``MIN_SEEDS`` seeds.
    """

    seeds: tuple[int, ...]
    points: Estimate
    by_seed: tuple[float, ...]
    p: float


class Accuracies:
    """Accuracies and unparsed shares of all results of one data set, in the same resamples of its records.

    Args:
        results: Results of one data set.
        resamples: Number of bootstrap resamples.

    Raises:
        InputError: Two results have other records, or other hard records with one seed.
    """

    def __init__(self, results: Sequence[Result], resamples: int = RESAMPLES) -> None:
        _require_comparable(results)
        columns: list[Array] = []
        for result in results:
            is_hard = np.array([mark != NOT_HARD for mark in result.hard])
            shares = np.array([0 if mark == NOT_HARD else int(mark) for mark in result.hard]) / result.outputs
            right, unparsed = (np.array([mark == kind for mark in result.right]) for kind in ("1", UNPARSED))
            columns += [right, unparsed, shares, right & is_hard, is_hard]
        count = len(results[0].right)
        groups = np.array(results[0].groups or range(count))
        by_group = np.zeros((groups.max() + 1, len(columns) + 1))
        np.add.at(by_group, groups, np.column_stack([*columns, np.ones(count)]).astype(np.float64))
        # Each group is drawn by itself, so that the draws do not depend on which other results are stored.
        equal = np.full(len(by_group), 1 / len(by_group))
        draws = generator_for(0, "records").multinomial(len(by_group), equal, size=resamples)
        sums = np.vstack([by_group.sum(axis=0), draws @ by_group])
        self.by_figure: dict[Figure, dict[tuple[str, int], Array]] = {name: {} for name in get_args(Figure)}
        for number, result in enumerate(results):
            right, unparsed, share, right_hard, hard = sums[:, 5 * number : 5 * number + 5].T
            self.by_figure["all"][result.arm, result.seed] = 100 * right / sums[:, -1]
            self.by_figure["unparsed"][result.arm, result.seed] = 100 * unparsed / sums[:, -1]
            with np.errstate(invalid="ignore"):
                self.by_figure["hard"][result.arm, result.seed] = 100 * share / hard
                self.by_figure["hard, greedy"][result.arm, result.seed] = 100 * right_hard / hard

    def difference(self, better: str, than: str, figure: Figure) -> Difference | None:
        """Return the first arm minus the second on their shared seeds; None if they share none.

        Args:
            better: The first arm.
            than: The second arm; empty: the first arm's own figure.
            figure: What is compared.
        """
        found = self.by_figure[figure]
        seeds = sorted({seed for arm, seed in found if arm == better})
        seeds = [seed for seed in seeds if not than or (than, seed) in found]
        if not seeds:
            return None
        by_seed = np.column_stack([found[better, seed] - (found[than, seed] if than else 0.0) for seed in seeds])
        own = tuple(map(float, by_seed[0]))
        if len(own) == 1:
            return Difference(tuple(seeds), estimate(by_seed[:, 0]), own, nan)
        points, p = over_seeds(own, float(np.nanvar(by_seed[1:].mean(axis=1))))
        return Difference(tuple(seeds), points, own, p if len(own) >= MIN_SEEDS else nan)


def over_seeds(by_seed: Sequence[float], of_records: float) -> tuple[Estimate, float]:
    """Return the mean over the seeds with its 95 % interval, and the two-sided p-value of no difference.

    Args:
        by_seed: The difference of each seed, at least two.
        of_records: Variance of their mean over resamples of the records.
    """
    from scipy.stats import t

    count, value = len(by_seed), float(np.mean(by_seed))
    of_seeds = float(np.var(by_seed, ddof=1)) / count
    squared = of_records + of_seeds
    if squared == 0:
        return Estimate(value, value, value), 1.0 if value == 0 else 0.0
    error = sqrt(squared)
    freedom = (count - 1) * (squared / of_seeds) ** 2 if of_seeds else inf
    half_width = float(t.ppf(0.975, freedom)) * error
    return Estimate(value, value - half_width, value + half_width), float(2 * t.sf(abs(value) / error, freedom))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number (Holm, 1979): ascending, each times how many are left.

    A comparison without a p-value, NaN, is not counted and stays without.
    """
    known = {name: value for name, value in p.items() if not isnan(value)}
    corrected: dict[str, float] = dict(p)
    largest = 0.0
    for rank, (name, value) in enumerate(sorted(known.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
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
