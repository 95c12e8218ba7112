"""Examples of flipped records: both directions, a reproducible sample, and shortened texts."""

import pytest

from guardreasoner.report.flip_examples import Excerpt, excerpt, flip_examples
from tests.support.report_runs import comparison_of


def test_gained_and_lost_records_are_shown() -> None:
    comparison = comparison_of({"a": "HU HH UU UH", "b": "HH HU UU UH"}, {"response": "answer", "reasoning": "since"})
    gained, lost = flip_examples(comparison, "a", "b", 5, 0)
    assert (gained.gained, gained.total, lost.gained, lost.total) == (True, 1, False, 1)
    (example,) = gained.shown
    assert (example.record_id.head, example.benchmark, example.gold) == ("0", "b", "request: harmful")
    assert example.parts == (("Prompt", Excerpt("prompt 0")), ("Response", Excerpt("answer")))
    first, second = example.answers
    assert (first.run, first.verdicts, first.right, first.seed) == ("a", "request: unharmful", False, "")
    assert (second.run, second.verdicts, second.right) == ("b", "request: harmful", True)
    assert first.output.head.startswith("since\n")
    assert "unharmful" in first.output.head
    assert lost.shown[0].record_id.head == "1"


def test_the_sample_depends_only_on_the_seed() -> None:
    comparison = comparison_of({"a": "HU " * 50, "b": "HH " * 50})
    gained, lost = flip_examples(comparison, "a", "b", 3, 0)
    assert (gained.total, len(gained.shown), lost.total, lost.shown) == (50, 3, 0, ())
    indices = [int(record.record_id.head) for record in gained.shown]
    assert indices == sorted(indices)
    assert flip_examples(comparison, "a", "b", 3, 0)[0] == gained
    assert flip_examples(comparison, "a", "b", 3, 1)[0] != gained
    assert flip_examples(comparison, "a", "b", 0, 0)[0].shown == ()


def test_unparsed_answers_are_labelled() -> None:
    gained, _ = flip_examples(comparison_of({"a": "H- HH", "b": "HH HH"}), "a", "b", 5, 0)
    assert gained.shown[0].answers[0].verdicts == "request: no verdict"


def test_the_output_shown_is_from_a_seed_of_the_majority() -> None:
    comparison = comparison_of({"a": "HU|HH|HU", "b": "HH"}, {"reasoning": "since"})
    gained, _ = flip_examples(comparison, "a", "b", 5, 0)
    first, second = gained.shown[0].answers
    assert (first.seed, first.verdicts) == ("a-0", "request: unharmful / harmful / unharmful")
    assert "Request: unharmful" in first.output.head
    assert second.seed == ""


@pytest.mark.parametrize("length", [7, 10])
def test_short_texts_are_not_shortened(length: int) -> None:
    assert excerpt("x" * length, (6, 4)) == Excerpt("x" * length)


def test_long_texts_lose_their_middle() -> None:
    assert excerpt("abcdefghijk", (6, 4)) == Excerpt("abcdef", 1, "hijk")
    assert excerpt("x" * 1_000_000, (6, 4)).left_out == 999_990
