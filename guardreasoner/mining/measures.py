"""Measures of what mining found: pure functions on arrays."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from guardreasoner.mining.counts import RIGHT, WRONG

WEIGHT_STEPS = 20
"""Steps from the smallest possible weight, 1 − γ, to the largest, in the histogram of weights."""


def vote_histogram(right: np.ndarray, cast: np.ndarray) -> dict[int, tuple[int, ...]]:
    """Count groups by their right votes.

    Args:
        right: (groups,) int64, right votes.
        cast: (groups,) int64, all votes; groups without any are not counted.

    Returns:
        For each number n of votes that occurs, the groups with 0, 1, … n right ones.
    """
    sizes = [int(size) for size in np.unique(cast) if size]
    return {n: tuple(np.bincount(right[cast == n], minlength=n + 1).tolist()) for n in sizes}


def weight_histogram(weights: Sequence[float], gamma: float) -> tuple[tuple[float, int], ...]:
    """Count pairs by weight, rounded to the nearest of 21 from 1 − γ to 1 + γ (γ = 0: to the only one, 1)."""
    if gamma == 0:
        return ((1.0, len(weights)),)
    places = np.rint((np.asarray(weights) - 1 + gamma) / (2 * gamma) * WEIGHT_STEPS).astype(np.int64)
    counts = np.bincount(places, minlength=WEIGHT_STEPS + 1).tolist()
    return tuple((round(1 - gamma + 2 * gamma * at / WEIGHT_STEPS, 6), count) for at, count in enumerate(counts))


def cohens_kappa(one: np.ndarray, other: np.ndarray) -> tuple[float, float | None]:
    """Return how often two judges agree, and Cohen's kappa: (agreement − chance) / (1 − chance).

    Args:
        one, other: (items,) of anything that can be sorted, at least one item.

    Returns:
        The share of items, and kappa; None where both say one and the same of everything, so that chance is 1.
    """
    said, places = np.unique(np.concatenate([one, other]), return_inverse=True)
    counts = np.zeros((len(said), len(said)))
    np.add.at(counts, tuple(places.reshape(2, -1)), 1)
    share, kappa = agreement(counts)
    return float(share), None if np.isnan(kappa) else float(kappa)


def agreement(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share on which two judges agree, and Cohen's kappa, of many tables at once.

    Args:
        counts: (..., C, C) items by what the one and what the other says of them.

    Returns:
        (...), (...): the share, NaN where nothing was judged; kappa, NaN where chance is 1, too.
    """
    total = counts.sum(axis=(-1, -2))
    chance = _ratio((counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1), total**2)
    share = _ratio(np.trace(counts, axis1=-2, axis2=-1), total)
    return share, _ratio(share - chance, 1 - chance)


def expected_hard(
    votes: np.ndarray, unit: np.ndarray, record: np.ndarray, ks: Sequence[int], pool: bool
) -> list[float]:
    """Return how many records would be hard, on average, if only k of each model's outputs had been drawn.

    A record is not hard when on every question no drawn output is right, or none is wrong. On one question with n
    outputs, c right and w wrong, the chance of that is C(n−c, k)/C(n, k) + C(n−w, k)/C(n, k) − C(n−c−w, k)/C(n, k): the
    hypergeometric chance that no right one is drawn, that no wrong one is, less that neither is, which the first two
    count twice. Over several questions the product of such sums is multiplied out; each of its terms is the chance that
    no output of a certain set is drawn. Models are drawn from independently.

    Args:
        votes: (outputs, questions) int8: ``RIGHT``, ``WRONG``, or anything else for no vote.
        unit: (outputs,) int64: which model's answers to which record an output belongs to; the first is 0.
        record: (units,) int64: the record of each, ascending from 0 without gaps.
        ks: numbers of outputs that are drawn of each unit; of one with fewer, all are.
        pool: whether the outputs of all models vote together; otherwise a record is hard when it is for one of them.

    Returns:
        One number for each k.
    """
    units = len(record)
    if not units:
        return [0.0 for _ in ks]
    n = np.bincount(unit, minlength=units)
    starts = np.flatnonzero(np.diff(record, prepend=-1))
    alike = np.zeros((len(ks), len(starts) if pool else units))
    for sides in product((RIGHT, WRONG, None), repeat=votes.shape[1]):
        missed, sign = np.zeros(len(votes), dtype=bool), 1
        for question, side in enumerate(sides):
            column = votes[:, question]
            missed |= ((column == RIGHT) | (column == WRONG)) if side is None else column == side
            sign = -sign if side is None else sign
        marked = np.bincount(unit[missed], minlength=units)
        for row, k in zip(alike, ks, strict=True):
            chance = chance_none_drawn(marked, n, k)
            row += sign * (np.multiply.reduceat(chance, starts) if pool else chance)
    records = alike if pool else np.multiply.reduceat(alike, starts, axis=1)
    return (1 - records).sum(axis=1).tolist()


def chance_none_drawn(marked: np.ndarray, n: np.ndarray, k: int) -> np.ndarray:
    """Return C(n − marked, k) / C(n, k): the chance that k of n outputs, drawn at random, hold no marked one.

    Args:
        marked: (units,) int64, 0 to n.
        n: (units,) int64; where it is below k, all n are drawn.
        k: how many are drawn.
    """
    chance = np.ones(len(n))
    for drawn in range(k):
        left = np.maximum(n - drawn, 1)  # where all have been drawn, what it divides is not used
        chance *= np.where(drawn < n, np.maximum(n - marked - drawn, 0) / left, 1.0)
    return chance


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
