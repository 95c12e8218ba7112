"""Cases: the order of records and of answers, what is flipped, wrong, unparsed, hard; which records."""

from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.review.cases import Cases, make_cases
from guardreasoner.sources.named_predictions import read_named_predictions
from tests.support.review_runs import FIRST, SECOND, two_runs, write_run


def cases(words: list[str], rater: str = "ann", **how: int) -> Cases:
    return make_cases(read_named_predictions(words, "review"), rater, **how)


def ids(of: Cases) -> list[str]:
    return [case.record.id for case in of.all]


def slots(of: Cases) -> list[str]:
    return [case.answers[0].run for case in sorted(of.all, key=lambda case: case.record.id)]


def test_flags_say_what_the_runs_did(tmp_path: Path) -> None:
    by_id = {case.record.id: case for case in cases(two_runs(tmp_path)).all}
    assert {name for name, case in by_id.items() if case.flipped} == {"home/0", "home/1", "away/2"}
    assert {name for name, case in by_id.items() if case.wrong} == {"home/0", "home/1", "away/2"}
    assert {name for name, case in by_id.items() if case.unparsed} == {"away/2"}
    assert {name for name, case in by_id.items() if case.hard} == {"home/0", "home/1"}
    (answer,) = (one for one in by_id["away/2"].answers if one.run == SECOND)
    assert (answer.verdicts, answer.completion) == (
        {"request": None, "completion": None, "response": None},
        "T: reasoning 2.\n\n",
    )


def test_an_unparsed_answer_of_both_runs_is_wrong_and_not_flipped(tmp_path: Path) -> None:
    words = [str(write_run(tmp_path / name, "-")) for name in ("a", "b")]
    (case,) = cases(words).all
    assert (case.flipped, case.wrong, case.unparsed) == (False, True, True)


def test_the_seed_alone_decides_the_order_of_records(tmp_path: Path) -> None:
    words = [str(write_run(tmp_path / name, "HU" * 20)) for name in ("a", "b")]
    assert ids(cases(words)) == ids(cases(words)) == ids(cases(words[::-1], rater="bob"))
    assert ids(cases(words)) != ids(cases(words, seed=1))
    assert [case.number for case in cases(words).all] == list(range(1, 41))


def test_answers_stand_in_an_order_of_the_records_own_and_of_the_raters(tmp_path: Path) -> None:
    words = [str(write_run(tmp_path / name, "HU" * 50)) for name in ("a", "b")]
    left = slots(cases(words))
    assert 30 < left.count("a") < 70
    assert left == slots(cases(words)) == slots(cases(words[::-1]))
    assert left == slots(cases(words, sample=100))
    assert left != slots(cases(words, seed=1))
    assert left != slots(cases(words, rater="bob"))


def test_a_sample_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    words = [str(write_run(tmp_path / "a", "HU" * 20))]
    few, more = cases(words, sample=5), cases(words, sample=15)
    assert ids(few) == ids(more)[:5]
    assert (len(few.all), len(few.not_drawn)) == (5, 35)
    assert few.not_drawn.isdisjoint(ids(few))
    with pytest.raises(InputError, match="--sample 41: there are 40 records"):
        cases(words, sample=41)


def test_other_records_are_refused_unless_asked_for(tmp_path: Path) -> None:
    words = [str(write_run(tmp_path / name, said)) for name, said in (("a", "HUHU"), ("b", "HU"))]
    with pytest.raises(InputError, match=r"b lacks 2 \(away 1, home 1\)"):
        cases(words)
    found = cases(words, intersect=True)
    assert (sorted(ids(found)), found.left_out) == (["home/0", "home/1"], {"a": 2, "b": 0})


def test_one_run_to_five(tmp_path: Path) -> None:
    words = [str(write_run(tmp_path / name, "HU")) for name in "abcdef"]
    assert [one.slot for one in cases(words[:1]).all[0].answers] == ["A"]
    assert [one.slot for one in cases(words[:5]).all[0].answers] == list("ABCDE")
    with pytest.raises(InputError, match="takes 5 runs at most, got 6"):
        cases(words)


def test_texts_are_known_by_what_they_are_not_by_their_place(tmp_path: Path) -> None:
    words = two_runs(tmp_path)
    one, other = cases(words), cases(words, seed=3)
    texts = {case.record.id: case.texts() for case in one.all}
    assert texts == {case.record.id: case.texts() for case in other.all}
    assert set(texts["home/0"]) == {FIRST, SECOND}
    write_run(tmp_path / "two", "UH-UHU", texts=["Other."])
    changed = {case.record.id: case.texts() for case in cases(words).all}
    assert {name for name in texts if texts[name] != changed[name]} == {"home/0"}
    assert texts["home/0"][FIRST] == changed["home/0"][FIRST]
