"""Counts of scores in fixed intervals: small enough to store, and enough to see whether scores have shifted."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isnan, log, sqrt
from typing import Any

from guardreasoner.errors import InputError

_LOWER = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05)
_MIDDLE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
EDGES = (*_LOWER, *_MIDDLE, *(1 - edge for edge in reversed(_LOWER)))
"""Edges between the intervals: close to each other near 0 and 1, where guards' scores lie."""


@dataclass(slots=True)
class ScoreHistogram:
    """Number of scores in each interval.

    Args:
        counts: number of scores below the first edge, from it up to the second one, and so on.
        unscored: number of records without a score.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))
    unscored: int = 0

    @classmethod
    def of(cls, scores: Iterable[float | None]) -> "ScoreHistogram":
        """Return the histogram of scores; None or NaN is a record without a score."""
        histogram = cls()
        for score in scores:
            histogram.add(score)
        return histogram

    @property
    def scored(self) -> int:
        """Number of scores."""
        return sum(self.counts)

    def add(self, score: float | None) -> None:
        """Count a score; None or NaN is a record without one."""
        if score is None or isnan(score):
            self.unscored += 1
        else:
            self.counts[bisect_right(EDGES, score)] += 1

    def as_json(self) -> dict[str, Any]:
        """Return the histogram as it is stored."""
        return {"edges": list(EDGES), "counts": self.counts, "unscored": self.unscored}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], where: str) -> "ScoreHistogram":
        """Return a stored histogram.

        Raises:
            InputError: it has other edges; ``where`` is the start of the message.
        """
        if list(stored.get("edges", ())) != list(EDGES):
            raise InputError(f"{where}: a score histogram with other intervals", "calibrate again")
        return cls(list(stored["counts"]), stored["unscored"])


def stability_index(before: ScoreHistogram, after: ScoreHistogram) -> float:
    """Return the population stability index, the sum over intervals of (q − p) · ln(q / p).

    Records without a score are an interval of their own. Half a record is added to each interval, so that an empty one
    has a finite term. Credit scoring, where the index is from, calls values below 0.1 no shift and above 0.25 a large
    one (Siddiqi, Credit Risk Scorecards, 2006).
    """
    shares = [_shares([*histogram.counts, histogram.unscored]) for histogram in (before, after)]
    return sum((q - p) * log(q / p) for p, q in zip(*shares, strict=True))


def stability_index_by_chance(before: ScoreHistogram, after: ScoreHistogram) -> float:
    """Return the stability index that samples of this size stay below in 95 % of the cases if nothing has shifted.

    Without a shift, the index divided by 1/n + 1/m has about a χ² distribution with one degree of freedom fewer than
    there are intervals (Yurdakul, Statistical Properties of Population Stability Index, 2018); intervals that neither
    sample has a record in do not count.
    """
    from scipy.stats import chi2

    counts = [[*histogram.counts, histogram.unscored] for histogram in (before, after)]
    if not all(map(sum, counts)):
        return 0.0
    intervals = sum(1 for pair in zip(*counts, strict=True) if any(pair))
    return float(chi2.ppf(0.95, max(1, intervals - 1)) * sum(1 / sum(one) for one in counts))


def kolmogorov_smirnov(before: ScoreHistogram, after: ScoreHistogram) -> tuple[float, float] | None:
    """Return the largest distance between the two cumulative shares of scores, and its p-value; None without scores.

    The distance is taken at the edges of the intervals, so it is at most that of the scores themselves, and the p-value
    (asymptotic, two-sided) is at least theirs.
    """
    from scipy.stats import kstwobign

    n, m = before.scored, after.scored
    if not n or not m:
        return None
    distance = below = 0.0
    for first, second in zip(before.counts, after.counts, strict=True):
        below += first / n - second / m
        distance = max(distance, abs(below))
    return distance, float(kstwobign.sf(distance * sqrt(n * m / (n + m))))


def _shares(counts: list[int]) -> list[float]:
    total = sum(counts) + len(counts) / 2
    return [(count + 0.5) / total for count in counts]
