"""Criteria of the plan: decision by the interval, results of whole plans, missing runs."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison import Run, compare
from guardreasoner.evaluation.comparison.criteria import CriterionVerdict, check_criteria, decide, quality_change
from guardreasoner.evaluation.intervals import Estimate
from tests.support.comparisons import TASKS, answers, records

ROLES = {"rsft": "A", "longer": "B", "hsdpo": "C"}


@pytest.mark.parametrize(
    ("low", "high", "strictly", "verdict"),
    [
        (55.1, 60, True, "met"),
        (55, 60, True, "not decidable"),
        (50, 55, True, "not met"),
        (50, 55.1, True, "not decidable"),
        (55, 60, False, "met"),
        (50, 55, False, "not decidable"),
        (50, 54.9, False, "not met"),
    ],
)
def test_decision_needs_the_whole_interval(low: float, high: float, strictly: bool, verdict: CriterionVerdict) -> None:
    assert decide(Estimate(55.5, low, high), 55, inf, strictly) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-2, 2, "met"), (-2.1, 1, "not decidable"), (1, 3, "not decidable"), (2.1, 3, "not met"), (-5, -2.1, "not met")],
)
def test_two_bounds(low: float, high: float, verdict: CriterionVerdict) -> None:
    assert decide(Estimate(0, low, high), -2, 2) == verdict


def test_no_decision_without_an_interval() -> None:
    assert decide(Estimate(99.0), 55, inf) == "not decidable"


@given(st.floats(-9, 9), st.floats(0, 9), st.floats(-9, 0), st.floats(0, 9), st.booleans())
def test_met_and_not_met_exclude_each_other(low: float, width: float, least: float, most: float, strict: bool) -> None:
    one = Estimate(low, low, low + width)
    mirrored = Estimate(-low, -low - width, -low)
    assert decide(one, least, most, strict) == decide(mirrored, -most, -least, strict)


def verdicts(**found: tuple[str, dict[str, str] | None]) -> dict[str, tuple[CriterionVerdict, float | None]]:
    """Check the criteria of runs on 400 records; return verdict and value by the name of the criterion."""
    answered = records("HU" * 200)
    runs = [Run(name, (answers(name, answered, *given),)) for name, given in found.items()]
    comparison = compare(runs, TASKS, resamples=500)
    roles = {role: name for role, name in ROLES.items() if name in found}
    return {
        one.name.partition(": ")[2]: (one.verdict, one.estimate and one.estimate.value)
        for one in check_criteria(comparison, roles, resamples=500)
    }


def wrong(count: int) -> str:
    """Return verdicts on 400 alternating records, ``count`` of them wrong."""
    return "UH" * (count // 2) + "HU" * (200 - count // 2)


def hard(share: int) -> dict[str, str]:
    """Return four outputs for each of 100 hard records, ``share`` percent of them right for every record."""
    return {f"{2 * n:03d}": "".join("H" if i < share // 25 else "U" for i in range(4)) for n in range(100)}


def test_successful_plan() -> None:
    found = verdicts(A=(wrong(40), hard(50)), B=(wrong(42), hard(50)), C=(wrong(40), hard(75)))
    assert found == {
        "accuracy above 55 %": ("met", 90),
        "hard-sample accuracy up by at least 5 points (5 to 10 are expected)": ("met", 25),
        "accuracy within 2 points of that of R-SFT": ("met", 0),
        "reasoning quality kept (at most 2 points lower)": ("not decidable", None),
        "better than longer R-SFT on hard samples": ("met", 25),
        "better than longer R-SFT on all records": ("not decidable", pytest.approx(0.5)),
    }


def test_failed_plan() -> None:
    found = verdicts(A=(wrong(240), hard(50)), B=(wrong(40), hard(50)), C=(wrong(280), hard(50)))
    assert [verdict for verdict, _ in found.values()] == [
        *("not met", "not met", "not met"),
        *("not decidable", "not met", "not met"),
    ]


def test_missing_runs_and_outputs_are_reported() -> None:
    answered = records("HU" * 4)
    runs = [Run(name, (answers(name, answered, "HU" * 4),)) for name in "AC"]
    comparison = compare(runs, TASKS, resamples=10)
    missing = [one.missing for one in check_criteria(comparison, {"rsft": "A", "hsdpo": "C"}, resamples=10)]
    assert missing == [
        "",
        "not all runs have outputs on hard records",
        "",
        "reasoning quality was not measured",
        "no run is named for longer",
        "no run is named for longer",
    ]
    assert all(one.missing == "no run is named for rsft" for one in check_criteria(comparison, {"hsdpo": "C"})[:4])


def test_given_quality_is_decided() -> None:
    answered = records("HU" * 4)
    comparison = compare([Run(name, (answers(name, answered, "HU" * 4),)) for name in "AC"], TASKS, resamples=10)
    for after, verdict in ((1.0, "met"), (0.5, "not met")):
        criteria = check_criteria(comparison, {"rsft": "A", "hsdpo": "C"}, ([[1.0] * 50], [[after] * 50]), resamples=10)
        assert criteria[3].verdict == verdict
        assert criteria[3].estimate is not None
        assert criteria[3].estimate.value == 100 * (after - 1)


def test_quality_change_needs_paired_rates() -> None:
    change = quality_change([[0.5, 1.0]], [[1.0, 1.0]], resamples=1000)
    assert (change.value, change.low, change.high) == (25, 0, 50)
    wrong: tuple[tuple[list[list[float]], list[list[float]], str], ...] = (
        ([], [], "got none"),
        ([[1.0]], [[]], "got 0 and 1"),
        ([[1.0], [1.0, 1.0]], [[1.0]], "got 1 and 2"),
        ([[2.0]], [[1.0]], "not between"),
    )
    for before, after, message in wrong:
        with pytest.raises(InputError, match=message):
            quality_change(before, after)


def test_quality_change_varies_with_the_seeds() -> None:
    one, two = [[1.0] * 50], [[1.0] * 50, [0.0] * 50]
    for before, after, sign in ((one, two, -1), (two, one, 1)):
        change = quality_change(before, after, resamples=1000)
        # every record has the same rates, so only the drawn seeds matter
        assert (change.value, *sorted((sign * (change.low or 0), sign * (change.high or 0)))) == (sign * 50, 0, 100)
    answered = records("HU" * 4)
    runs = [Run(name, tuple(answers(f"{name}{n}", answered, "HU" * 4) for n in range(2))) for name in "AC"]
    comparison = compare(runs, TASKS, resamples=100)
    kept = check_criteria(comparison, {"rsft": "A", "hsdpo": "C"}, (two, [[1.0] * 50] * 2), resamples=100)[3]
    assert (kept.verdict, kept.estimate and (kept.estimate.low, kept.estimate.high)) == ("met", (0, 100))


def test_unknown_roles_and_runs_are_refused() -> None:
    answered = records("HU")
    comparison = compare([Run(name, (answers(name, answered, "HU"),)) for name in "AC"], TASKS, resamples=10)
    with pytest.raises(InputError, match="criteria: unknown role 'best', expected one of rsft, longer, hsdpo"):
        check_criteria(comparison, {"best": "A"})
    with pytest.raises(InputError, match="criteria: rsft: unknown run 'B', expected one of A, C"):
        check_criteria(comparison, {"rsft": "B"})
