"""Apply a calibration: from the score of a record to a probability and a band.

A calibration belongs to one model, one task and one kind of score. It is chosen on validation records by
:mod:`guardreasoner.evaluation.calibration.fit` and stored in the model folder's ``guard.json``.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, isnan, log
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from guardreasoner.errors import InputError
from guardreasoner.evaluation.scoring.readings import Reading, reading_name
from guardreasoner.records import ScoreKind
from guardreasoner.sources.validation import validation_message
from guardreasoner.workflow.manifest import fingerprint

Band = Literal["block", "review", "pass", "unparsed"]

BANDS: tuple[Band, ...] = ("block", "review", "pass", "unparsed")

_EDGE = 1e-6
"""Distance from 0 and 1 that a score has at least before its logit is taken."""

_SEAL = "sha256"

_Share = Annotated[float, Field(ge=0, le=1)]


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
    """Calibration of one task: a curve from scores to probabilities, and thresholds.

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
    ordered: Reading | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the task; of a task with ordered labels, that of the reading, such as "response (strict)"."""
        return reading_name(self.task, self.ordered) if self.ordered else self.task

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
            InputError: the calibration was damaged or edited, or has missing or wrong fields.
        """
        what = f"{where}: calibration of {task}"
        content = {key: value for key, value in stored.items() if key != _SEAL}
        try:
            is_intact = stored.get(_SEAL) == fingerprint(content)
        except RecursionError:
            is_intact = False
        if not is_intact:
            raise InputError(f"{what}: damaged or edited since it was made", "calibrate again")
        try:
            row = _Stored.model_validate(content)
        except ValidationError as error:
            raise InputError(f"{what}: {validation_message(error)}", "calibrate again") from None
        return cls(
            task=task,
            score=row.score,
            curve=row.curve.curve(),
            block=row.bands.block,
            review=row.bands.review,
            false_positive_rate=row.fpr,
            expected=row.expected,
            interval=(row.interval[0], row.interval[1]),
            negatives=row.negatives,
            false_positives=row.false_positives,
            records=row.records,
            data=row.data,
            ordered=row.ordered,
            details=row.model_extra or {},
        )


def logit(score: float) -> float:
    """Return the log-odds of a score, which is first moved to at least 0.000001 from 0 and 1."""
    score = min(max(score, _EDGE), 1 - _EDGE)
    return log(score / (1 - score))


class _Fields(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _StoredIdentity(_Fields):
    kind: Literal["none"]

    def curve(self) -> CalibrationCurve:
        return Identity()


class _StoredPlatt(_Fields):
    kind: Literal["platt"]
    slope: PositiveFloat
    intercept: float

    def curve(self) -> CalibrationCurve:
        return Sigmoid(self.kind, self.slope, self.intercept)


class _StoredTemperature(_Fields):
    kind: Literal["temperature"]
    temperature: PositiveFloat

    def curve(self) -> CalibrationCurve:
        return Sigmoid(self.kind, 1 / self.temperature)


class _StoredSteps(_Fields):
    kind: Literal["isotonic"]
    scores: list[float] = Field(min_length=1)
    probabilities: list[_Share]

    @model_validator(mode="after")
    def _is_increasing(self) -> "_StoredSteps":
        if len(self.scores) != len(self.probabilities):
            raise ValueError("expected as many probabilities as scores")
        if sorted(self.scores) != self.scores or sorted(self.probabilities) != self.probabilities:
            raise ValueError("expected scores and probabilities that never decrease")
        return self

    def curve(self) -> CalibrationCurve:
        return Steps(tuple(self.scores), tuple(self.probabilities))


class _StoredBands(_Fields):
    block: float
    review: float

    @model_validator(mode="after")
    def _is_ordered(self) -> "_StoredBands":
        if self.review > self.block:
            raise ValueError("review is above block")
        return self


class _Stored(_Fields, extra="allow"):
    """What :meth:`Calibration.as_json` writes, without the hash; fields that are not named here are the details."""

    score: ScoreKind
    ordered: Reading | None = None
    curve: Annotated[_StoredIdentity | _StoredPlatt | _StoredTemperature | _StoredSteps, Field(discriminator="kind")]
    threshold: float
    fpr: _Share
    expected: _Share
    interval: list[_Share] = Field(min_length=2, max_length=2)
    bands: _StoredBands
    negatives: PositiveInt
    false_positives: NonNegativeInt
    records: PositiveInt
    data: str

    @model_validator(mode="after")
    def _is_possible(self) -> "_Stored":
        if not self.false_positives <= self.negatives <= self.records:
            raise ValueError("expected false_positives <= negatives <= records")
        return self
