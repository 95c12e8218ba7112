"""95 % intervals: percentile bootstrap over records (Efron, 1979) and Wilson's interval of a proportion.

Every bootstrapped metric here depends on the records only through sums of per-record features (true positives, correct
answers, words). Records with equal features form one cell, and how often each cell occurs among N records drawn with
replacement is multinomial. Drawing those counts is the same as drawing records; its cost depends on the number of
cells, not on N.
"""

from dataclasses import dataclass
from math import sqrt
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
"""Default number of bootstrap resamples."""

_PERCENTILES = (2.5, 97.5)
_MAX_DRAWS = 1 << 22  # numbers drawn at a time: 32 MB
_Z = 1.959964  # 97.5th percentile of the standard normal distribution


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval.

    Args:
        value: observed value; None if it is undefined, such as the F1 of a class that no record has.
        low: lower end of the interval; None if the value is undefined or nothing was resampled.
        high: upper end of the interval.
        left_out: resamples in which the value is undefined; the interval leaves them out.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    left_out: int = 0

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the interval; None if there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Share:
    """A number of cases out of a total.

    Args:
        count: number of cases.
        total: number of records that the cases are counted among.
    """

    count: int
    total: int

    @property
    def percent(self) -> float | None:
        """The share in percent; None if the total is 0."""
        return 100 * self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the share in percent; None if the total is 0."""
        return _wilson_bounds(self.count / self.total, self.total) if self.total else None

    def estimate(self) -> Estimate:
        """Return the share in percent with Wilson's 95 % interval."""
        return Estimate(self.percent, *(self.interval or (None, None)))


def wilson(mean: float, n: int) -> Estimate:
    """Return a proportion in percent with Wilson's 95 % interval (https://doi.org/10.1080/01621459.1927.10502953).

    Args:
        mean: mean of n values from 0 to 1. If some are neither 0 nor 1, the interval is conservative (too wide).
        n: number of values, at least 1.
    """
    return Estimate(100 * mean, *_wilson_bounds(mean, n))


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Return the observed value with its percentile bootstrap interval.

    Args:
        values: (1 + resamples,) observed value, then its value in each resample; NaN where undefined.
    """
    observed, resampled = float(values[0]), values[1:]
    if np.isnan(observed):
        return Estimate(None)
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return Estimate(observed, left_out=len(resampled))
    low, high = np.percentile(defined, _PERCENTILES)
    return Estimate(observed, float(low), float(high), len(resampled) - len(defined))


def resampled_sums(
    features: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the sum of each feature over the records, and over each resample of the records.

    Args:
        features: (N, M) features of each record, N at least 1.
        resamples: number of resamples, each of N records drawn with replacement.
        generator: source of the draws.

    Returns:
        (1 + resamples, M); the first row is the sum over the records themselves.
    """
    cells, counts = np.unique(features, axis=0, return_counts=True)
    n = int(counts.sum())
    sums = np.empty((1 + resamples, features.shape[1]))
    sums[0] = counts @ cells
    block = max(1, _MAX_DRAWS // len(cells))
    for start in range(1, 1 + resamples, block):
        draws = generator.multinomial(n, counts / n, size=min(block, 1 + resamples - start))
        sums[start : start + len(draws)] = draws @ cells
    return sums


def resampled_seeds(seeds: int, resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the weight of each training seed in the mean over seeds, in each resample of the seeds.

    Args:
        seeds: number of training seeds, at least 1.
        resamples: number of resamples, each of as many seeds drawn with replacement.
        generator: source of the draws.

    Returns:
        (1 + resamples, seeds) with rows that sum to 1; the first row has equal weights.
    """
    drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    return np.vstack([np.ones(seeds), drawn]) / seeds


def generator_for(seed: int, name: str) -> np.random.Generator:
    """Return a random generator of its own for ``name``, so that no interval depends on what else is resampled."""
    return np.random.default_rng([seed, crc32(name.encode())])


def _wilson_bounds(mean: float, n: int) -> tuple[float, float]:
    centre = mean + _Z**2 / (2 * n)
    half_width = _Z * sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n**2))
    low, high = ((centre + sign * half_width) / (1 + _Z**2 / n) for sign in (-1, 1))
    return 100 * max(0.0, low), 100 * min(1.0, high)
