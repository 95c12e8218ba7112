"""Apply a calibration: bands, curves, and what is stored."""

import json
from math import nan

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration import Calibration, CalibrationCurve, Identity, Sigmoid, Steps
from guardreasoner.evaluation.calibration.fit import CURVE_KINDS, fit_curve
from guardreasoner.evaluation.scoring.metrics import Array
from guardreasoner.workflow.manifest import fingerprint


def calibration(curve: CalibrationCurve) -> Calibration:
    return Calibration(
        *("request", "direct", curve, 0.9, 0.25, 0.01, 0.008, (0.001, 0.02)), negatives=500, false_positives=3,
        records=800, data="d", details={"run": "r"},
    )  # fmt: skip


def test_bands() -> None:
    bands = calibration(Identity())
    assert [bands.band(score) for score in (1.0, 0.9, 0.8999, 0.25, 0.2499, 0.0)] == [
        *("block", "block", "review", "review", "pass", "pass")
    ]
    assert [bands.band(None), bands.band(nan)] == ["unparsed", "unparsed"]


def training_data() -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    scores = random.random(2000)
    return scores, random.random(2000) < scores**3


@pytest.mark.parametrize("kind", CURVE_KINDS)
def test_a_stored_curve_is_the_same_curve(kind: str) -> None:
    scores, positive = training_data()
    curve = fit_curve(kind, scores, positive)  # type: ignore[arg-type]
    stored = json.loads(json.dumps(calibration(curve).as_json()))
    assert stored["curve"]["kind"] == kind
    assert stored["bands"] == {"block": stored["threshold"], "review": 0.25}
    read = Calibration.from_json("request", stored, "guard.json")
    assert read.as_json() == stored
    values = [read.probability(score) for score in np.linspace(0, 1, 101)]
    assert values == pytest.approx([curve.probability(score) for score in np.linspace(0, 1, 101)])
    assert values == sorted(values)
    assert 0 <= values[0] <= values[-1] <= 1


def test_curves_are_calibrated() -> None:
    scores, positive = training_data()

    def brier(curve: CalibrationCurve) -> float:
        return float(np.mean((np.array([curve.probability(score) for score in scores]) - positive) ** 2))

    by_kind = {kind: brier(fit_curve(kind, scores, positive)) for kind in CURVE_KINDS}
    assert by_kind["isotonic"] <= by_kind["platt"] < by_kind["temperature"] <= by_kind["none"]


def test_isotonic_steps_are_those_of_scikit_learn() -> None:
    scores, positive = training_data()
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, positive)
    curve, at = fit_curve("isotonic", scores, positive), np.linspace(-0.1, 1.1, 241)
    assert [curve.probability(score) for score in at] == pytest.approx(model.predict(at))


def test_the_temperature_is_found() -> None:
    random = np.random.default_rng(1)
    logits = 2 * random.normal(size=20_000)
    positive = random.random(20_000) < 1 / (1 + np.exp(-logits))
    curve = fit_curve("temperature", 1 / (1 + np.exp(-3 * logits)), positive)
    assert curve.as_json() == {"kind": "temperature", "temperature": pytest.approx(3, rel=0.05)}


def test_separated_classes_and_edges_have_finite_curves() -> None:
    scores, positive = np.array([0.0] * 30 + [1.0] * 30), np.repeat([False, True], 30)
    for kind in CURVE_KINDS:
        curve = fit_curve(kind, scores, positive)
        low, high = curve.probability(0.0), curve.probability(1.0)
        assert 0 <= low < 0.1
        assert 0.9 < high <= 1
        json.dumps(curve.as_json(), allow_nan=False)
    assert Sigmoid("platt", 1e9).probability(0.0) == 0
    assert Steps((0.2, 0.4), (0.1, 0.3)).probability(0.3) == pytest.approx(0.2)


def test_an_inverted_score_has_no_increasing_curve() -> None:
    scores, positive = training_data()
    with pytest.raises(InputError, match="no increasing curve"):
        fit_curve("platt", 1 - scores, positive)


def test_a_damaged_calibration_is_refused() -> None:
    stored = calibration(Identity()).as_json()
    for change in ({"threshold": 0.8}, {"sha256": ""}, {"more": 1}):
        with pytest.raises(InputError, match=r"guard.json: calibration of request: damaged"):
            Calibration.from_json("request", {**stored, **change}, "guard.json")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        *(
            (name, None, name)
            for name in ("score", "curve", "fpr", "expected", "interval", "bands", "negatives", "data")
        ),
        ("score", "fast", "score"),
        ("ordered", "fair", "ordered"),
        ("curve", {"kind": "spline"}, "curve"),
        ("curve", {"kind": "platt", "slope": "1", "intercept": 0.0}, "curve.platt.slope"),
        ("curve", {"kind": "platt", "slope": 1.0}, "curve.platt.intercept"),
        ("curve", {"kind": "temperature", "temperature": 0}, "curve.temperature.temperature"),
        ("curve", {"kind": "isotonic", "scores": [], "probabilities": []}, "curve.isotonic.scores"),
        ("curve", {"kind": "isotonic", "scores": [0.1, 0.2], "probabilities": [0.1]}, "as many probabilities"),
        ("curve", {"kind": "isotonic", "scores": [0.2, 0.1], "probabilities": [0.1, 0.2]}, "never decrease"),
        ("bands", {"block": 0.5}, "bands.review"),
        ("bands", {"block": "0.5", "review": 0.1}, "bands.block"),
        ("bands", {"block": 0.5, "review": 0.6}, "review is above block"),
        ("interval", [0.1], "interval"),
        ("negatives", 2.5, "negatives"),
        ("negatives", 1, "false_positives <= negatives"),
        ("expected", nan, "expected"),
    ],
)
def test_missing_and_wrong_fields_are_refused_under_a_valid_hash(field: str, value: object, problem: str) -> None:
    row = {name: kept for name, kept in calibration(Identity()).as_json().items() if name not in ("sha256", field)}
    for changed in [{**row, field: value}] if value is not None else [row, {**row, field: None}, {**row, field: [[]]}]:
        with pytest.raises(InputError, match=r"^guard.json: calibration of request: ") as error:
            Calibration.from_json("request", {**changed, "sha256": fingerprint(changed)}, "guard.json")
        assert problem in str(error.value)
        assert "\n" not in str(error.value)
