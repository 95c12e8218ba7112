"""Apply a calibration: from the score of a record to a probability and a band. Standard library only.

A calibration belongs to one model, one task and one kind of score. It is chosen on validation records by
:mod:`guardreasoner.evaluation.calibration.fit` and stored in the model folder's ``guard.json``.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, isnan, log
from typing import Any, Literal, Protocol

from guardreasoner.errors import InputError
from guardreasoner.evaluation.scoring.decisions import OrderedRule
from guardreasoner.workflow.manifest import fingerprint

Band = Literal["block", "review", "pass", "unparsed"]

BANDS: tuple[Band, ...] = ("block", "review", "pass", "unparsed")

_EDGE = 1e-6
"""Distance from 0 and 1 that a score has at least before its logit is taken."""

_SEAL = "sha256"


class CalibrationCurve(Protocol):
    """A map from scores to probabilities that never decreases."""

    def probability(self, score: float) -> float:
        """Return the probability that a record with this score is positive."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Return the curve as it is stored."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """The score itself is the probability."""

    def probability(self, score: float) -> float:
        """Return the score."""
        return score

    def as_json(self) -> dict[str, Any]:
        """Return the curve as it is stored."""
        return {"kind": "none"}


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """A logistic function of the logit of the score: Platt scaling, or temperature scaling with intercept 0.

    Args:
        kind: ``platt`` or ``temperature``.
        slope: factor of the logit, above 0; for ``temperature``, 1 / T.
        intercept: added to the product.
    """

    kind: Literal["platt", "temperature"]
    slope: float
    intercept: float = 0.0

    def probability(self, score: float) -> float:
        """Return the probability that a record with this score is positive."""
        value = self.slope * logit(score) + self.intercept
        return 1 / (1 + exp(-value)) if value >= 0 else exp(value) / (1 + exp(value))

    def as_json(self) -> dict[str, Any]:
        """Return the curve as it is stored."""
        if self.kind == "temperature":
            return {"kind": self.kind, "temperature": 1 / self.slope}
        return {"kind": self.kind, "slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True, slots=True)
class Steps:
    """Isotonic regression: linear between the given points, constant outside of them.

    Args:
        scores: increasing scores.
        probabilities: probability at each of them, never decreasing.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def probability(self, score: float) -> float:
        """Return the probability that a record with this score is positive."""
        right = bisect_right(self.scores, score)
        if right in (0, len(self.scores)):
            return self.probabilities[0 if right == 0 else -1]
        (x0, x1), (y0, y1) = (values[right - 1 : right + 1] for values in (self.scores, self.probabilities))
        return y0 + (y1 - y0) * (score - x0) / (x1 - x0)

    def as_json(self) -> dict[str, Any]:
        """Return the curve as it is stored."""
        return {"kind": "isotonic", "scores": list(self.scores), "probabilities": list(self.probabilities)}


@dataclass(frozen=True, slots=True)
class Calibration:
    """CalibrationCurve and thresholds of one task.

    Thresholds apply to the score, not to the probability, which may be equal for different scores.

    Args:
        task: name of the task.
        score: kind of the score: ``direct``, ``reasoned`` or ``votes``.
        curve: from score to probability.
        block: threshold of the band ``block``: a score from here on is a positive verdict.
        review: threshold of the band ``review``, at most ``block``; lower scores pass.
        false_positive_rate: wanted false-positive rate of ``block``.
        expected: expected rate on new records.
        interval: 95 % interval of the rate on new records.
        negatives: number of negative records that the threshold was chosen on.
        false_positives: number of them with a score from ``block`` on, or without a score.
        records: number of records.
        data: hash of the predictions.
        ordered: how the middle labels of an ordered task count; None for another task.
        details: further numbers, and how the calibration was made.
    """

    task: str
    score: str
    curve: CalibrationCurve
    block: float
    review: float
    false_positive_rate: float
    expected: float
    interval: tuple[float, float]
    negatives: int
    false_positives: int
    records: int
    data: str
    ordered: OrderedRule | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def probability(self, raw: float) -> float:
        """Return the probability that a record with this score is positive."""
        return self.curve.probability(raw)

    def band(self, raw: float | None) -> Band:
        """Return the band of a score; a record without a score (None or NaN) is ``unparsed``, never ``pass``."""
        if raw is None or isnan(raw):
            return "unparsed"
        return "block" if raw >= self.block else "review" if raw >= self.review else "pass"

    def as_json(self) -> dict[str, Any]:
        """Return the calibration as it is stored, with a hash that shows damage."""
        row = {
            "score": self.score,
            **({"ordered": self.ordered} if self.ordered else {}),
            "curve": self.curve.as_json(),
            "threshold": self.block,
            "fpr": self.false_positive_rate,
            "expected": self.expected,
            "interval": list(self.interval),
            "bands": {"block": self.block, "review": self.review},
            "negatives": self.negatives,
            "false_positives": self.false_positives,
            "records": self.records,
            "data": self.data,
            **self.details,
        }
        return {**row, _SEAL: fingerprint(row)}

    @classmethod
    def from_json(cls, task: str, stored: Mapping[str, Any], where: str) -> "Calibration":
        """Return a stored calibration.

        Args:
            task: name of the task.
            stored: what :meth:`as_json` returned.
            where: location, for messages.

        Raises:
            InputError: the calibration was damaged or edited, or is none.
        """
        row = {key: value for key, value in stored.items() if key != _SEAL}
        if stored.get(_SEAL) != fingerprint(row):
            raise InputError(f"{where}: calibration of {task}: damaged or edited since it was made", "calibrate again")
        bands = row.pop("bands")
        row.pop("threshold")
        return cls(
            task,
            row.pop("score"),
            _curve(row.pop("curve")),
            bands["block"],
            bands["review"],
            row.pop("fpr"),
            row.pop("expected"),
            tuple(row.pop("interval")),
            row.pop("negatives"),
            row.pop("false_positives"),
            row.pop("records"),
            row.pop("data"),
            row.pop("ordered", None),
            row,
        )


def logit(score: float) -> float:
    """Return the log-odds of a score, which is first moved to at least 0.000001 from 0 and 1."""
    score = min(max(score, _EDGE), 1 - _EDGE)
    return log(score / (1 - score))


def _curve(stored: Mapping[str, Any]) -> CalibrationCurve:
    kind = stored["kind"]
    if kind == "platt":
        return Sigmoid(kind, stored["slope"], stored["intercept"])
    if kind == "temperature":
        return Sigmoid(kind, 1 / stored["temperature"])
    if kind == "isotonic":
        return Steps(tuple(stored["scores"]), tuple(stored["probabilities"]))
    return Identity()
