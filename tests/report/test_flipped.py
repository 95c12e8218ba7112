"""Examples of flips: both directions, few of many, the same ones each time, long texts shortened with a count."""

import pytest

from guardreasoner.report.flipped import Excerpt, excerpt, flipped
from tests.support.report_runs import comparison_of


def test_both_directions() -> None:
    comparison = comparison_of({"a": "HU HH UU UH", "b": "HH HU UU UH"}, {"response": "said", "reasoning": "since"})
    gained, lost = flipped(comparison, "a", "b", 5, 0)
    assert (gained.gained, gained.total, lost.gained, lost.total) == (True, 1, False, 1)
    (example,) = gained.shown
    assert (example.record_id.head, example.benchmark, example.gold) == ("0", "b", "request: harmful")
    assert (example.prompt.head, example.response) == ("prompt 0", Excerpt("said"))
    one, other = example.sides
    assert (one.run, one.verdicts, one.right, one.seed) == ("a", "request: unharmful", False, "")
    assert (other.run, other.verdicts, other.right) == ("b", "request: harmful", True)
    assert one.output.head.startswith("since\n")
    assert "unharmful" in one.output.head
    assert lost.shown[0].record_id.head == "1"


def test_few_of_many_the_same_each_time() -> None:
    comparison = comparison_of({"a": "HU " * 50, "b": "HH " * 50})
    gained, lost = flipped(comparison, "a", "b", 3, 0)
    assert (gained.total, len(gained.shown), lost.total, lost.shown) == (50, 3, 0, ())
    places = [int(one.record_id.head) for one in gained.shown]
    assert places == sorted(places)
    assert flipped(comparison, "a", "b", 3, 0)[0] == gained
    assert flipped(comparison, "a", "b", 3, 1)[0] != gained
    assert flipped(comparison, "a", "b", 0, 0)[0].shown == ()


def test_an_answer_without_a_verdict_is_said() -> None:
    gained, _ = flipped(comparison_of({"a": "H- HH", "b": "HH HH"}), "a", "b", 5, 0)
    assert gained.shown[0].sides[0].verdicts == "request: no verdict"


def test_of_several_seeds_one_speaks_that_says_what_most_do() -> None:
    comparison = comparison_of({"a": "HU|HH|HU", "b": "HH"}, {"reasoning": "since"})
    gained, _ = flipped(comparison, "a", "b", 5, 0)
    one, other = gained.shown[0].sides
    assert (one.seed, one.verdicts) == ("a-0", "request: unharmful / harmful / unharmful")
    assert "Request: unharmful" in one.output.head
    assert other.seed == ""


@pytest.mark.parametrize("length", [7, 10])
def test_a_short_text_is_whole(length: int) -> None:
    assert excerpt("x" * length, (6, 4)) == Excerpt("x" * length)


def test_a_long_text_loses_its_middle() -> None:
    assert excerpt("abcdefghijk", (6, 4)) == Excerpt("abcdef", 1, "hijk")
    assert excerpt("x" * 1_000_000, (6, 4)).left_out == 999_990
