"""Reading ratings files: round trip, retractions and replacements, invalid lines."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Message, Record
from guardreasoner.review.ratings import Ratings, conversation_hash, read_ratings, retraction
from tests.support.ratings import rating, write_ratings


def test_round_trip(tmp_path: Path) -> None:
    one = replace(rating("r", better="b", a="yn-y", b="yyyy"), note="„so“ \u202e <b>")
    skip = replace(rating("s", a="----", b="----"), skipped=True)
    assert read_ratings([write_ratings(tmp_path / "x.jsonl", one, skip)]).active == (one, skip)


def test_last_rating_counts_and_a_retraction_restores_the_one_before(tmp_path: Path) -> None:
    first, second, other = rating("r", a="yyyy"), rating("r", a="nnnn"), rating("r", "bob", a="nnnn")
    path = write_ratings(tmp_path / "x.jsonl", first, second, other)
    assert read_ratings([path]).latest() == [second, other]
    path = write_ratings(tmp_path / "x.jsonl", first, second, other, retraction(second, "z", second.time))
    result = read_ratings([path])
    assert (result.latest(), result.retracted) == ([first, other], 1)


def test_ratings_of_other_sets_of_runs_are_separate() -> None:
    two, three = rating("r", a="yyyy", b="yyyy"), rating("r", a="yyyy", c="yyyy")
    assert Ratings((two, three)).latest() == [two, three]


def test_several_files_are_ordered_by_time_and_one_file_by_line(tmp_path: Path) -> None:
    first, second, third = rating("r", a="yyyy"), rating("s", "bob", a="yyyy"), rating("r", a="nnnn")
    files = [write_ratings(tmp_path / "ann", first, third), write_ratings(tmp_path / "bob", second)]
    assert read_ratings(files).active == (first, second, third)
    assert read_ratings([write_ratings(tmp_path / "back", third, first)]).latest() == [first]  # the clock was set back


def test_cut_off_last_line_is_counted(tmp_path: Path) -> None:
    one = rating("r", a="yyyy")
    path = write_ratings(tmp_path / "x.jsonl", one)
    with path.open("a") as file:
        file.write(json.dumps(rating("s", a="yyyy").line())[:-9])
    result = read_ratings([path])
    assert (result.active, result.truncated) == ((one,), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "thought"}, "kind: expected rating, label, labels, skip or retraction, found 'thought'"),
        ({"note": None}, "note: expected str, found NoneType"),
        ({"rater": ...}, "missing field 'rater'"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"better": "C"}, "better: 'C' is not one of the answers"),
        ({"time": "yesterday"}, "time: expected ISO 8601 with a time zone, found 'yesterday'"),
        ({"time": "2025-01-01T00:00:00"}, "time: expected ISO 8601 with a time zone"),
        ({"answers": {}}, "answers: expected at least one answer"),
        ({"answers": []}, "answers: expected dict, found list"),
        ({"answers": {"AB": {}}}, "answers: expected one of A, B, C, D, E, found 'AB'"),
        ({"answers": {"A": 1}}, "answers: A: expected a JSON object, found int"),
        ({"answers": {"A": {"run": "a"}}}, "answers: A: missing field 'text'"),
        ({"id": "first"}, "'first' occurs twice"),
    ],
)
def test_invalid_line_is_reported_with_file_and_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    line = {key: value for key, value in (rating("r", a="yyyy").line() | change).items() if value is not ...}
    path = write_ratings(tmp_path / "x.jsonl", rating("q", a="yyyy").line() | {"id": "first"}, line)
    with pytest.raises(InputError, match=r"x\.jsonl:2: ") as raised:
        read_ratings([path])
    assert message in str(raised.value)


def test_inconsistent_answers_are_refused(tmp_path: Path) -> None:
    line = rating("r", a="yyyy", b="yyyy").line()
    line["answers"]["B"]["run"] = "a"
    for broken, message in (
        (line, "a run occurs twice"),
        (rating("r", a="yyyy").line() | {"better": "A"}, "better: 'A' is not one of the answers"),
        (retraction(rating("r", a="yyyy"), "z", "2025-01-01T00:00:00Z"), "is no earlier line"),
    ):
        with pytest.raises(InputError, match=message):
            read_ratings([write_ratings(tmp_path / "x.jsonl", broken)])
    line = rating("r", a="yyyy").line()
    line["answers"]["A"]["true"] = 1
    with pytest.raises(InputError, match="answers: A: true: expected bool or null, found int"):
        read_ratings([write_ratings(tmp_path / "x.jsonl", line)])
    with pytest.raises(InputError, match="no such file"):
        read_ratings([tmp_path / "absent"])


def test_a_conversation_and_its_policy_have_a_hash() -> None:
    one_turn = Record("r", "How?", "So.")
    assert conversation_hash(one_turn) == "34c4931a1e308e9b"  # as stored in ratings files
    longer = Record("r", messages=[*one_turn.messages, Message("user", "And?")])
    records = (one_turn, longer, replace(one_turn, policy="Be good."), replace(longer, policy="Be good."))
    assert len({conversation_hash(record) for record in records}) == 4
