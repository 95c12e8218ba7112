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
def test_two_runs_are_compared(first: str, last: str, tone: str, headline: str) -> None:
    summary = summarize_comparison(comparison_of({"old": first, "new": last}))
    assert (summary.tone, summary.headline) == (tone, headline)


def test_the_baseline_is_the_most_accurate_of_the_others() -> None:
    middling = "HU " * 10 + "HH " * 10
    runs = {"weak": BAD, "strong": middling, "weak again": BAD, "new": GOOD}
    summary = summarize_comparison(comparison_of(runs))
    assert summary.headline == "new is better than strong."
    assert "against 50.0 %: +50.0 points" in summary.details[0]
    assert [line.split(":")[0] for line in summary.details[-2:]] == ["Against weak again", "Against weak"]
    assert summarize_comparison(comparison_of({"one": BAD, "two": BAD, "new": GOOD})).headline.endswith("than two.")


def test_what_got_worse_is_named_before_the_other_runs() -> None:
    old, new = "HH HH UU UU UU", "HU HU UU UU UU"
    summary = summarize_comparison(comparison_of({"weak": "HU HU UH UH UH", "old": old, "new": new}))
    (place,) = (index for index, line in enumerate(summary.details) if line.startswith("Worse than old: "))
    assert "F1 of request -100.0 points" in summary.details[place]
    assert summary.details[place].endswith("2 records lost (gained 0).")
    assert summary.details[place + 1].startswith("Against weak: ")
    unparsed = summarize_comparison(comparison_of({"old": old, "new": "HH HH UU UU U-"})).details[-1]
    assert "1 more unparsed answer; 1 record lost" in unparsed
    same = summarize_comparison(comparison_of({"old": old, "new": old})).details[-1]
    assert same == "Worse than old: no task, no hard record and no single record."


def test_details_have_differences_and_intervals() -> None:
    summary = summarize_comparison(comparison_of({"old": "HH HU HU HU", "new": "HH HH HH HU"}))
    accuracy, f1, hard, _ = summary.details
    assert accuracy.startswith(
        "Every verdict right: 75.0 % of 4 records, against 25.0 %: +50.0 points (95 % interval +"
    )
    assert accuracy.endswith("; exact McNemar test p = 0.500.")
    assert f1.startswith("F1 of the positive class, mean over tasks: +45.7 points (95 %")
    assert (
        hard == "Hard records: 50.0 % of the outputs right, against 50.0 %: +0.0 points (95 % interval +0.0 to +0.0)."
    )


def test_details_include_the_other_runs() -> None:
    summary = summarize_comparison(comparison_of({"old": BAD, "worse": BAD, "alike": GOOD, "new": GOOD}))
    assert summary.headline == "No significant difference between new and alike."
    worse = summary.details[-2]
    assert worse.startswith(
        "Against worse: better on all records, +100.0 points (95 % interval +100.0 to +100.0); hard "
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


def test_unparsed_answers_are_compared_by_seed() -> None:
    runs = {"old": "HH UU U-", "new": "HH UU U-|HH UU U-"}
    assert "unparsed" not in summarize_comparison(comparison_of(runs)).details[-1]
    worse = {"old": "HH UU UU|HH UU UU", "new": "HH UU U-"}
    assert "1 more unparsed answer" in summarize_comparison(comparison_of(worse)).details[-1]


def test_left_out_answers_are_not_called_right() -> None:
    comparison = compare(runs_of({"old": "HH HU UU", "new": "HH H- U-"}), GUARD_TASKS, "drop", resamples=10)
    assert "100.0 % of the parsed answers to 3 records" in summarize_comparison(comparison).details[0]
