"""Choose a calibration on validation records: the curve, the thresholds, and the rates to expect from them.

Thresholds are order statistics. Of n negative records and a new one, drawn alike, each is equally likely to have the
r-th highest score. So a new negative record scores above the r-th highest of the n with probability at most
r / (n + 1), and exactly that without equal scores. The threshold is placed just above the r-th highest score, with the
largest r for which r / (n + 1) is at most the wanted rate. No assumption on the distribution of scores is needed.

A record without a score counts as the worst case: a negative one as a false positive, a positive one as missed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration import Calibration, CalibrationCurve, Identity, Sigmoid, Steps, logit
from guardreasoner.evaluation.scoring.metrics import Array
from guardreasoner.evaluation.scoring.readings import Reading

CurveKind = Literal["none", "platt", "isotonic", "temperature"]

CURVE_KINDS: tuple[CurveKind, ...] = get_args(CurveKind)

_TAIL = 0.025  # of a 95 % interval, on each side
_LOG_TEMPERATURES = (-5.0, 5.0)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold chosen for a wanted rate of errors.

    Args:
        value: the threshold.
        errors: number of records on its wrong side.
        n: number of records of the class that can be on the wrong side.
    """

    value: float
    errors: int
    n: int

    @property
    def expected(self) -> float:
        """Expected rate on new records, (errors + 1) / (n + 1)."""
        return (self.errors + 1) / (self.n + 1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a calibration is asked for.

    Args:
        false_positive_rate: share of negative records that may be blocked.
        miss_rate: share of positive records that may pass.
        curve: curve from scores to probabilities.
    """

    false_positive_rate: float
    miss_rate: float = 0.05
    curve: CurveKind = "platt"


def choose_calibration(
    where: str,
    scores: Array,
    positive: NDArray[np.bool_],
    wanted: Wanted,
    *,
    task: str,
    score: str,
    ordered: Reading | None = None,
    data: str = "",
    details: Mapping[str, Any] | None = None,
) -> Calibration:
    """Choose curve and thresholds.

    Args:
        where: what the records are, for messages.
        scores: (N,) scores; NaN for an unscored record.
        positive: (N,) classes.
        wanted: rates and curve.
        task: name of the task.
        score: kind of the scores.
        ordered: how the middle labels of an ordered task count; None for another task.
        data: hash of the predictions.
        details: how the calibration was made, which is stored with it.

    Raises:
        InputError: there are too few records of a class for a rate, no scores, equal scores only, or none that reaches
            the threshold.
    """
    is_scored = ~np.isnan(scores)
    found = scores[is_scored]
    if not len(found):
        raise InputError(f"{where}: no record has a {score} score")
    rate, miss_rate = wanted.false_positive_rate, wanted.miss_rate
    block = block_threshold(scores[~positive], rate, f"{where}: --fpr {rate:g}: negative records")
    passing = pass_threshold(scores[positive], miss_rate, f"{where}: --miss_rate {miss_rate:g}: positive records")
    if found.min() == found.max():
        raise InputError(f"{where}: every record has the same {score} score, {found[0]:g}")
    if found.max() < block.value:
        ties = int((~positive & (~is_scored | (scores == found.max()))).sum())
        raise InputError(
            f"{where}: --fpr {rate:g}: {ties:,} negative records have no lower score than any other record, so no "
            "threshold reaches this rate",
            f"the lowest rate that these scores allow is --fpr {ceil(1e4 * (ties + 1) / (block.n + 1)) / 1e4:g}",
        )
    if passing.value > block.value:  # no band between the two
        missed = int((scores[positive] < block.value).sum())
        passing = Threshold(block.value, missed, passing.n)
    recalled, positives = int((scores[positive] >= block.value).sum()), passing.n
    return Calibration(
        task=task,
        score=score,
        curve=fit_curve(wanted.curve, found, positive[is_scored]),
        block=block.value,
        review=passing.value,
        false_positive_rate=rate,
        expected=block.expected,
        interval=new_set_interval(block.errors, block.n, block.n),
        negatives=block.n,
        false_positives=block.errors,
        records=len(scores),
        data=data,
        ordered=ordered,
        details={
            "long_run_interval": list(long_run_interval(block.errors, block.n)),
            "recall": recalled / positives,
            "blocked": int((found >= block.value).sum()),
            "recall_interval": list(long_run_interval(recalled, positives)),
            "miss_rate": miss_rate,
            "expected_miss_rate": passing.expected,
            "positives": positives,
            "unscored": len(scores) - len(found),
            **(details or {}),
        },
    )


def block_threshold(scores: Array, rate: float, what: str) -> Threshold:
    """Return the lowest threshold with an expected rate of at most ``rate`` of negative records that reach it.

    Args:
        scores: (N,) scores of negative records; NaN for an unscored one, which counts as reaching any threshold.
        rate: wanted rate.
        what: the option and its records, for messages.

    Raises:
        InputError: there are too few records for the rate, or too many of them are unscored.
    """
    rank = _rank(len(scores), rate, what)
    descending = -np.sort(-np.where(np.isnan(scores), np.inf, scores))
    last = descending[rank - 1]
    if np.isinf(last):
        unscored = int(np.isnan(scores).sum())
        raise InputError(f"{what}: {unscored:,} of {len(scores):,} have no score, which alone exceeds the rate")
    # The next larger number: a threshold itself counts as reached.
    return Threshold(float(np.nextafter(last, np.inf)), int((descending > last).sum()), len(scores))


def pass_threshold(scores: Array, rate: float, what: str) -> Threshold:
    """Return the highest threshold with an expected rate of at most ``rate`` of positive records below it.

    Args:
        scores: (N,) scores of positive records; NaN for an unscored one, which never passes.
        rate: wanted rate.
        what: the option and its records, for messages.

    Raises:
        InputError: there are too few records for the rate.
    """
    rank = _rank(len(scores), rate, what)
    ascending = np.sort(np.where(np.isnan(scores), np.inf, scores))
    last = min(float(ascending[rank - 1]), 1.0)
    return Threshold(last, int((ascending < last).sum()), len(scores))


def needed_records(rate: float) -> int:
    """Return how many records of a class a threshold for an expected rate needs: 1 / rate − 1."""
    return max(1, ceil(round(1 / rate, 9)) - 1)


def long_run_interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of the rate on very many new records (Clopper and Pearson, 1934).

    Args:
        count: number of errors among n records.
        n: number of records, at least 1.
    """
    from scipy.stats import beta

    low = float(beta.ppf(_TAIL, count, n - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - _TAIL, count + 1, n - count)) if count < n else 1.0
    return low, high


def new_set_interval(count: int, n: int, new: int) -> tuple[float, float]:
    """Return the 95 % interval of the rate on a given number of new records: beta-binomial.

    It is wider than the interval in the long run, since the new records vary as well. With an order statistic as the
    threshold and no equal scores, the upper end is exact, whatever the distribution of scores.

    Args:
        count: number of errors among n records.
        n: number of records, at least 1.
        new: number of new records of the same class, at least 1.
    """
    from scipy.stats import betabinom

    low = float(betabinom.ppf(_TAIL, new, count, n - count + 1)) / new if count else 0.0
    high = float(betabinom.ppf(1 - _TAIL, new, count + 1, n - count)) / new if count < n else 1.0
    return low, high


def fit_curve(kind: CurveKind, scores: Array, positive: NDArray[np.bool_]) -> CalibrationCurve:
    """Fit the curve from scores to probabilities.

    Args:
        kind: ``none`` keeps the scores; ``platt`` fits slope and intercept of the logit, with Platt's (1999) smoothed
            classes; ``isotonic`` a non-decreasing curve; ``temperature`` the slope alone.
        scores: (N,) scores from 0 to 1.
        positive: (N,) classes; both must occur.

    Raises:
        InputError: the score falls as the share of positive records rises, so that no increasing curve fits.
    """
    return _FITS[kind](scores, positive)


def _platt(scores: Array, positive: NDArray[np.bool_]) -> CalibrationCurve:
    from sklearn.linear_model import LogisticRegression

    logits = np.array([[logit(score)] for score in scores])
    positives, negatives = int(positive.sum()), int((~positive).sum())
    # Smoothed classes, which keep the slope finite where the classes are separated, are weights of both classes.
    weight = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    model = LogisticRegression(C=np.inf, max_iter=1000)
    classes = np.repeat([1, 0], len(scores))
    model.fit(np.vstack([logits, logits]), classes, sample_weight=np.concatenate([weight, 1 - weight]))
    return Sigmoid("platt", _increasing(float(model.coef_[0, 0])), float(model.intercept_[0]))


def _isotonic(scores: Array, positive: NDArray[np.bool_]) -> CalibrationCurve:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, positive.astype(np.float64))
    return Steps(tuple(map(float, model.X_thresholds_)), tuple(map(float, model.y_thresholds_)))


def _temperature(scores: Array, positive: NDArray[np.bool_]) -> CalibrationCurve:
    from scipy.optimize import minimize_scalar

    signed = np.array([logit(score) for score in scores]) * np.where(positive, 1, -1)
    found = minimize_scalar(
        lambda log_t: np.logaddexp(0, -signed / np.exp(log_t)).mean(), bounds=_LOG_TEMPERATURES, method="bounded"
    )
    return Sigmoid("temperature", float(np.exp(-found.x)))


def _none(scores: Array, positive: NDArray[np.bool_]) -> CalibrationCurve:
    return Identity()


_FITS: Mapping[CurveKind, Callable[[Array, NDArray[np.bool_]], CalibrationCurve]] = {
    "none": _none,
    "platt": _platt,
    "isotonic": _isotonic,
    "temperature": _temperature,
}


def _increasing(slope: float) -> float:
    if slope <= 0:
        raise InputError(
            "--curve platt: the score is not higher where the label is positive, so no increasing curve fits",
            "check the labels and the positive label of the task, or use --curve none",
        )
    return slope


def _rank(n: int, rate: float, what: str) -> int:
    """Return the largest r with r / (n + 1) at most the rate."""
    rank = floor(round(rate * (n + 1), 9))
    if rank < 1:
        raise InputError(f"{what}: at least {needed_records(rate):,} are needed, found {n:,}")
    return rank
