"""What a comparison comes to, in words."""

import pytest

from guardreasoner.evaluation.comparison import compare
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.report.verdict import verdict
from guardreasoner.tasks import GUARD_TASKS
from tests.support.report_runs import comparison_of, runs_of

BAD, GOOD = "HU " * 20, "HH " * 20


@pytest.mark.parametrize(
    ("first", "last", "tone", "headline"),
    [
        (BAD, GOOD, "better", "new is better than old."),
        (GOOD, BAD, "worse", "new is worse than old."),
        (GOOD, GOOD, "open", "These data do not decide whether new is better than old."),
        (BAD, "HU " * 19 + "HH ", "open", "These data do not decide whether new is better than old."),
        ("HU " * 19 + "HH ", BAD, "open", "These data do not decide whether new is better than old."),
    ],
)
def test_the_last_run_is_held_against_the_first(first: str, last: str, tone: str, headline: str) -> None:
    found = verdict(comparison_of({"old": first, "between": GOOD, "new": last}))
    assert (found.tone, found.headline) == (tone, headline)


def test_by_how_much_and_how_sure() -> None:
    found = verdict(comparison_of({"old": "HH HU HU HU", "new": "HH HH HH HU"}))
    accuracy, f1, hard = found.details
    assert accuracy.startswith(
        "Every verdict right: 75.0 % of 4 records, against 25.0 %: +50.0 points (95 % interval +"
    )
    assert accuracy.endswith("; exact McNemar test p = 0.500.")
    assert f1.startswith("F1 of the positive class, mean over tasks: +45.7 points (95 %")
    assert (
        hard == "Hard records: 50.0 % of the outputs right, against 50.0 %: +0.0 points (95 % interval +0.0 to +0.0)."
    )


def test_the_runs_between_are_told_of_too() -> None:
    found = verdict(comparison_of({"old": BAD, "alike": GOOD, "worse": BAD, "new": GOOD}))
    worse, alike = found.details[-2:]
    assert worse.startswith(
        "Against worse: better on all records, +100.0 points (95 % interval +100.0 to +100.0); hard "
    )
    assert alike.startswith(
        "Against alike: not decided on all records, +0.0 points (95 % interval +0.0 to +0.0); hard "
    )


def test_criteria_are_counted() -> None:
    criteria = [Criterion("a", "met", None), Criterion("b", "met", None), Criterion("c", "not decidable", None)]
    found = verdict(comparison_of({"old": BAD, "new": GOOD}), criteria)
    assert found.details[-1] == "Criteria of the two-stage plan: 2 met, 0 not met, 1 not decidable."


def test_several_seeds_have_no_p() -> None:
    found = verdict(comparison_of({"old": f"{BAD}|{BAD}", "new": GOOD}))
    assert "McNemar" not in " ".join(found.details)
    assert found.tone == "better"


@pytest.mark.parametrize(
    ("first", "last", "said"), [(BAD, GOOD, "more records right than"), (GOOD, GOOD, "as many records right as")]
)
def test_without_intervals_nothing_is_decided(first: str, last: str, said: str) -> None:
    comparison = compare(runs_of({"old": first, "new": last}), GUARD_TASKS, resamples=0)
    found = verdict(comparison)
    assert found.tone == "open"
    assert found.headline == f"new has {said} old; without intervals, nothing says how sure that is."
    assert "interval" not in " ".join(found.details)


def test_no_figure_is_said() -> None:
    comparison = compare(runs_of({"old": "H- H-", "new": "HH HH"}), GUARD_TASKS, "drop", resamples=10)
    found = verdict(comparison)
    assert found.headline == "No figure says whether new is better than old: no answer was counted."
    assert found.tone == "open"
