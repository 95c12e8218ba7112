"""Review items: order of records and answers, flags, samples, differing records."""

from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.review.items import ReviewSet, make_review_set
from guardreasoner.sources.named_predictions import read_named_predictions
from tests.support.review_runs import FIRST, SECOND, two_runs, write_run


def review_set(runs: list[str], rater: str = "ann", **arguments: int) -> ReviewSet:
    return make_review_set(read_named_predictions(runs, "review"), rater, **arguments)


def ids(review_set: ReviewSet) -> list[str]:
    return [item.record.id for item in review_set.items]


def left_runs(review_set: ReviewSet) -> list[str]:
    """Return the run of the leftmost answer of each record."""
    return [item.answers[0].run for item in sorted(review_set.items, key=lambda item: item.record.id)]


def test_flags_by_record(tmp_path: Path) -> None:
    by_id = {item.record.id: item for item in review_set(two_runs(tmp_path)).items}
    assert {name for name, item in by_id.items() if item.flipped} == {"home/0", "home/1", "away/2"}
    assert {name for name, item in by_id.items() if item.wrong} == {"home/0", "home/1", "away/2"}
    assert {name for name, item in by_id.items() if item.unparsed} == {"away/2"}
    assert {name for name, item in by_id.items() if item.hard} == {"home/0", "home/1"}
    (answer,) = (one for one in by_id["away/2"].answers if one.run == SECOND)
    assert (answer.verdicts, answer.completion) == (
        {"request": None, "completion": None, "response": None},
        "T: reasoning 2.\n\n",
    )


def test_answers_unparsed_in_both_runs_are_wrong_and_not_flipped(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / name, "-")) for name in ("a", "b")]
    (item,) = review_set(runs).items
    assert (item.flipped, item.wrong, item.unparsed) == (False, True, True)


def test_records_with_the_same_answer_are_passed_over(tmp_path: Path) -> None:
    texts = ["same", "same", "same"]
    runs = [str(write_run(tmp_path / name, verdicts, texts=texts)) for name, verdicts in (("a", "HUHU"), ("b", "HHHU"))]
    made = review_set(runs)
    assert set(ids(made)) == {"home/1", "home/3"}
    assert made.same == {"home/0", "away/2"}
    assert len(make_review_set(read_named_predictions(runs, "review"), "", keep_same=True).items) == 4
    assert len(review_set(runs[:1]).items) == 4
    with pytest.raises(InputError, match="there are 2 records with different answers, and 2 with the same"):
        review_set(runs, sample=3)
    with pytest.raises(InputError, match="gave the same answers to all 4 records"):
        review_set([runs[0], f"copy={tmp_path / 'a'}"])


def test_record_order_depends_only_on_the_seed(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / name, "HU" * 20)) for name in ("a", "b")]
    assert ids(review_set(runs)) == ids(review_set(runs)) == ids(review_set(runs[::-1], rater="bob"))
    assert ids(review_set(runs)) != ids(review_set(runs, seed=1))
    assert [item.number for item in review_set(runs).items] == list(range(1, 41))


def test_answer_order_depends_on_record_and_rater(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / name, "HU" * 50)) for name in ("a", "b")]
    left = left_runs(review_set(runs))
    assert 30 < left.count("a") < 70
    assert left == left_runs(review_set(runs)) == left_runs(review_set(runs[::-1]))
    assert left == left_runs(review_set(runs, sample=100))
    assert left != left_runs(review_set(runs, seed=1))
    assert left != left_runs(review_set(runs, rater="bob"))


def test_sample_is_a_prefix_of_a_larger_sample(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / "a", "HU" * 20))]
    small, large = review_set(runs, sample=5), review_set(runs, sample=15)
    assert ids(small) == ids(large)[:5]
    assert (len(small.items), len(small.not_sampled)) == (5, 35)
    assert small.not_sampled.isdisjoint(ids(small))
    with pytest.raises(InputError, match="--sample 41: there are 40 records"):
        review_set(runs, sample=41)


def test_differing_records_need_intersect(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / name, verdicts)) for name, verdicts in (("a", "HUHU"), ("b", "HU"))]
    with pytest.raises(InputError, match=r"b lacks 2 \(away 1, home 1\)"):
        review_set(runs)
    result = review_set(runs, intersect=True)
    assert (sorted(ids(result)), result.left_out) == (["home/0", "home/1"], {"a": 2, "b": 0})


def test_at_most_five_runs(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / name, "HU")) for name in "abcdef"]
    assert [one.slot for one in review_set(runs[:1]).items[0].answers] == ["A"]
    assert [one.slot for one in review_set(runs[:5]).items[0].answers] == list("ABCDE")
    with pytest.raises(InputError, match="at most 5 runs, got 6"):
        review_set(runs)


def test_text_hashes_do_not_depend_on_the_order(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    one, other = review_set(runs), review_set(runs, seed=3)
    texts = {item.record.id: item.text_hashes() for item in one.items}
    assert texts == {item.record.id: item.text_hashes() for item in other.items}
    assert set(texts["home/0"]) == {FIRST, SECOND}
    write_run(tmp_path / "two", "UH-UHU", texts=["Other."])
    changed = {item.record.id: item.text_hashes() for item in review_set(runs).items}
    assert {name for name in texts if texts[name] != changed[name]} == {"home/0"}
    assert texts["home/0"][FIRST] == changed["home/0"][FIRST]
