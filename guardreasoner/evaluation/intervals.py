"""Figures with 95 % intervals, from records drawn with replacement (Efron, 1979: the percentile bootstrap).

All figures here depend on the records only through sums of what each one counts (a hit, a miss, a right answer).
Records that count alike form one cell, and how often each cell comes up when N records are drawn is multinomial. To
draw those numbers is to draw records, at a cost that depends on how many cells there are and hardly on N.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000

_LEVEL = (2.5, 97.5)  # percentiles that bound 95 %
_AT_ONCE = 1 << 22  # numbers in memory at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval.

    Args:
        value: as observed; None where undefined, as is the F1 of a class that no record has.
        low: 2.5th percentile over the resamples; None where undefined, or where nothing was resampled.
        high: 97.5th percentile.
        left_out: resamples that are not in the interval, since the figure is undefined in them.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    left_out: int = 0


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Return a figure and its interval.

    Args:
        values: (1 + resamples,) the figure as observed, then in each resample; NaN where undefined.
    """
    observed, drawn = float(values[0]), values[1:]
    if np.isnan(observed):
        return Estimate(None)
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return Estimate(observed, left_out=len(drawn))
    low, high = np.percentile(defined, _LEVEL)
    return Estimate(observed, float(low), float(high), len(drawn) - len(defined))


def resampled_sums(
    features: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the sum of each feature over the records, and over as many records drawn with replacement.

    Args:
        features: (N, M) what each record counts, N at least 1.
        resamples: how often N records are drawn.
        generator: draws them.

    Returns:
        (1 + resamples, M); the first row is the sum over the records themselves.
    """
    cells, counts = np.unique(features, axis=0, return_counts=True)
    number = int(counts.sum())
    sums = np.empty((1 + resamples, features.shape[1]))
    sums[0] = counts @ cells
    block = max(1, _AT_ONCE // len(cells))
    for start in range(1, 1 + resamples, block):
        draws = generator.multinomial(number, counts / number, size=min(block, 1 + resamples - start))
        sums[start : start + len(draws)] = draws @ cells
    return sums


def resampled_seeds(seeds: int, resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the weights of a mean over training seeds, drawn with replacement.

    Args:
        seeds: how many there are, at least 1.
        resamples: how often as many are drawn.
        generator: draws them.

    Returns:
        (1 + resamples, seeds), rows that add up to 1; in the first row all weigh the same.
    """
    drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    return np.vstack([np.ones(seeds), drawn]) / seeds


def generator_for(seed: int, name: str) -> np.random.Generator:
    """Return the random generator of what ``name`` says: its own, so that no interval depends on what else is drawn."""
    return np.random.default_rng([seed, crc32(name.encode())])
