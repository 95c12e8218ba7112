"""The summary of a comparison."""

import pytest

from guardreasoner.evaluation.comparison import compare
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.report.comparison_summary import summarize_comparison
from guardreasoner.tasks import GUARD_TASKS
from tests.support.report_runs import comparison_of, runs_of

BAD, GOOD = "HU " * 20, "HH " * 20


@pytest.mark.parametrize(
    ("first", "last", "tone", "headline"),
    [
        (BAD, GOOD, "better", "new is better than old."),
        (GOOD, BAD, "worse", "new is worse than old."),
        (GOOD, GOOD, "open", "No significant difference between new and old."),
        (BAD, "HU " * 19 + "HH ", "open", "No significant difference between new and old."),
        ("HU " * 19 + "HH ", BAD, "open", "No significant difference between new and old."),
    ],
)
def test_the_last_run_is_compared_with_the_first(first: str, last: str, tone: str, headline: str) -> None:
    summary = summarize_comparison(comparison_of({"old": first, "between": GOOD, "new": last}))
    assert (summary.tone, summary.headline) == (tone, headline)


def test_details_have_differences_and_intervals() -> None:
    summary = summarize_comparison(comparison_of({"old": "HH HU HU HU", "new": "HH HH HH HU"}))
    accuracy, f1, hard = summary.details
    assert accuracy.startswith(
        "Every verdict right: 75.0 % of 4 records, against 25.0 %: +50.0 points (95 % interval +"
    )
    assert accuracy.endswith("; exact McNemar test p = 0.500.")
    assert f1.startswith("F1 of the positive class, mean over tasks: +45.7 points (95 %")
    assert (
        hard == "Hard records: 50.0 % of the outputs right, against 50.0 %: +0.0 points (95 % interval +0.0 to +0.0)."
    )


def test_details_include_the_other_runs() -> None:
    summary = summarize_comparison(comparison_of({"old": BAD, "alike": GOOD, "worse": BAD, "new": GOOD}))
    worse, alike = summary.details[-2:]
    assert worse.startswith(
        "Against worse: better on all records, +100.0 points (95 % interval +100.0 to +100.0); hard "
    )
    assert alike.startswith(
        "Against alike: no significant difference on all records, +0.0 points (95 % interval +0.0 to +0.0); hard "
    )


def test_criteria_are_counted() -> None:
    criteria = [Criterion("a", "met", None), Criterion("b", "met", None), Criterion("c", "not decidable", None)]
    summary = summarize_comparison(comparison_of({"old": BAD, "new": GOOD}), criteria)
    assert summary.details[-1] == "Criteria of the two-stage plan: 2 met, 0 not met, 1 not decidable."


def test_several_seeds_have_no_p() -> None:
    summary = summarize_comparison(comparison_of({"old": f"{BAD}|{BAD}", "new": GOOD}))
    assert "McNemar" not in " ".join(summary.details)
    assert summary.tone == "better"


@pytest.mark.parametrize(
    ("first", "last", "relation"), [(BAD, GOOD, "more records right than"), (GOOD, GOOD, "as many records right as")]
)
def test_without_intervals_nothing_is_decided(first: str, last: str, relation: str) -> None:
    comparison = compare(runs_of({"old": first, "new": last}), GUARD_TASKS, resamples=0)
    summary = summarize_comparison(comparison)
    assert summary.tone == "open"
    assert summary.headline == f"new has {relation} old (no intervals)."
    assert "interval" not in " ".join(summary.details)


def test_runs_without_counted_answers_cannot_be_compared() -> None:
    comparison = compare(runs_of({"old": "H- H-", "new": "HH HH"}), GUARD_TASKS, "drop", resamples=10)
    summary = summarize_comparison(comparison)
    assert summary.headline == "new and old cannot be compared: no answers were counted."
    assert summary.tone == "open"
