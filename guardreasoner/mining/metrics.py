"""Statistics of mining as pure functions on arrays."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from guardreasoner.mining.counts import RIGHT, WRONG

WEIGHT_BINS = 20
"""Number of steps from the smallest possible weight, 1 − γ, to the largest, 1 + γ, in the histogram of weights."""


def vote_histogram(right: np.ndarray, total: np.ndarray) -> dict[int, tuple[int, ...]]:
    """Count groups by their number of right votes.

    Args:
        right: (groups,) int64, number of right votes.
        total: (groups,) int64, number of all votes; groups without votes are not counted.

    Returns:
        For each number n of votes that occurs, the number of groups with 0, 1, … n right votes.
    """
    sizes = [int(size) for size in np.unique(total) if size]
    return {n: tuple(np.bincount(right[total == n], minlength=n + 1).tolist()) for n in sizes}


def weight_histogram(weights: Sequence[float] | np.ndarray, gamma: float) -> tuple[tuple[float, int], ...]:
    """Count pairs by weight.

    Returns:
        (weight, count) for each of 21 weights from 1 − γ to 1 + γ, to the nearest of which each weight is rounded; for
        γ = 0, one entry for weight 1.
    """
    if gamma == 0:
        return ((1.0, len(weights)),)
    bins = np.rint((np.asarray(weights) - 1 + gamma) / (2 * gamma) * WEIGHT_BINS).astype(np.int64)
    counts = np.bincount(bins, minlength=WEIGHT_BINS + 1).tolist()
    return tuple((round(1 - gamma + 2 * gamma * index / WEIGHT_BINS, 6), count) for index, count in enumerate(counts))


def cohens_kappa(first: np.ndarray, second: np.ndarray) -> tuple[float, float | None]:
    """Compute observed agreement and Cohen's kappa, (observed − expected) / (1 − expected), of two raters.

    Args:
        first: (items,) ratings of the first rater, of any sortable type; at least one item.
        second: (items,) ratings of the second rater.

    Returns:
        The share of items with equal ratings, and kappa; kappa is None if both raters give all items the same rating,
        so that the expected agreement is 1.
    """
    categories, indices = np.unique(np.concatenate([first, second]), return_inverse=True)
    confusion = np.zeros((len(categories), len(categories)))
    np.add.at(confusion, tuple(indices.reshape(2, -1)), 1)
    share, kappa = agreement(confusion)
    return float(share), None if np.isnan(kappa) else float(kappa)


def agreement(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute observed agreement and Cohen's kappa for a batch of confusion matrices.

    Args:
        confusion: (..., C, C) number of items by the rating of the first and of the second rater.

    Returns:
        The observed agreement (...), NaN where there are no items; and kappa (...), NaN also where the expected
        agreement is 1.
    """
    total = confusion.sum(axis=(-1, -2))
    expected = _ratio((confusion.sum(axis=-1) * confusion.sum(axis=-2)).sum(axis=-1), total**2)
    observed = _ratio(np.trace(confusion, axis1=-2, axis2=-1), total)
    return observed, _ratio(observed - expected, 1 - expected)


def expected_hard(
    votes: np.ndarray, unit: np.ndarray, record: np.ndarray, ks: Sequence[int], pool: bool
) -> list[float]:
    """Compute the expected number of hard records if only k of each model's outputs had been drawn.

    A record is not hard if, on every question, no drawn output is right or none is wrong. On one question with n
    outputs, c right and w wrong, that probability is C(n−c, k)/C(n, k) + C(n−w, k)/C(n, k) − C(n−c−w, k)/C(n, k): the
    hypergeometric probabilities that no right output is drawn and that no wrong one is, minus the probability that
    neither is, which the first two count twice. For several questions the product of such sums is expanded; each term
    is the probability that no output of a certain set is drawn. Draws from different models are independent.

    Args:
        votes: (outputs, questions) int8, ``RIGHT`` or ``WRONG``; any other value is no vote.
        unit: (outputs,) int64, index of the unit that an output belongs to; a unit is one model's outputs for a record.
        record: (units,) int64, index of each unit's record; ascending from 0 without gaps.
        ks: numbers of outputs drawn from each unit; from a unit with fewer outputs, all are drawn.
        pool: whether the outputs of all models vote together; otherwise a record is hard if it is hard for one model.

    Returns:
        The expected number of hard records for each k.
    """
    units = len(record)
    if not units:
        return [0.0 for _ in ks]
    n = np.bincount(unit, minlength=units)
    starts = np.flatnonzero(np.diff(record, prepend=-1))
    not_mixed = np.zeros((len(ks), len(starts) if pool else units))
    # For each question, a term excludes the right outputs, the wrong ones, or (None, with a minus sign) both.
    for excluded in product((RIGHT, WRONG, None), repeat=votes.shape[1]):
        marked, sign = np.zeros(len(votes), dtype=bool), 1
        for question, vote in enumerate(excluded):
            column = votes[:, question]
            marked |= ((column == RIGHT) | (column == WRONG)) if vote is None else column == vote
            sign = -sign if vote is None else sign
        marked_in_unit = np.bincount(unit[marked], minlength=units)
        for row, k in zip(not_mixed, ks, strict=True):
            probability = probability_none_drawn(marked_in_unit, n, k)
            row += sign * (np.multiply.reduceat(probability, starts) if pool else probability)
    not_hard = not_mixed if pool else np.multiply.reduceat(not_mixed, starts, axis=1)
    return (1 - not_hard).sum(axis=1).tolist()


def probability_none_drawn(marked: np.ndarray, n: np.ndarray, k: int) -> np.ndarray:
    """Compute C(n − marked, k) / C(n, k), the probability that k of n outputs drawn at random include no marked one.

    Args:
        marked: (units,) int64, number of marked outputs, 0 to n.
        n: (units,) int64, number of outputs; if it is below k, all n are drawn.
        k: number of outputs drawn.

    Returns:
        (units,) float64 probabilities.
    """
    probability = np.ones(len(n))
    for drawn in range(k):
        remaining = np.maximum(n - drawn, 1)  # avoids 0/0 where all have been drawn; np.where discards the quotient
        probability *= np.where(drawn < n, np.maximum(n - marked - drawn, 0) / remaining, 1.0)
    return probability


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
