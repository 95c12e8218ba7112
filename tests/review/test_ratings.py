"""Ratings files: what is read, what is refused with its line, what stands after retractions and replacements."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.review.ratings import Rating, Ratings, read_ratings, retraction
from tests.support.ratings import rating


def written(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(one.line() if isinstance(one, Rating) else one) + "\n" for one in lines))
    return path


def test_a_line_reads_as_it_was_written(tmp_path: Path) -> None:
    one = replace(rating("r", better="b", a="yn-y", b="yyyy"), note="„so“ \u202e <b>")
    skip = replace(rating("s", a="----", b="----"), skipped=True)
    assert read_ratings([written(tmp_path / "x.jsonl", one, skip)]).standing == (one, skip)


def test_the_last_one_counts_and_a_retraction_brings_back_the_one_before(tmp_path: Path) -> None:
    first, second, other = rating("r", a="yyyy"), rating("r", a="nnnn"), rating("r", "bob", a="nnnn")
    path = written(tmp_path / "x.jsonl", first, second, other)
    assert read_ratings([path]).latest() == [second, other]
    path = written(tmp_path / "x.jsonl", first, second, other, retraction(second, "z", second.time))
    found = read_ratings([path])
    assert (found.latest(), found.retracted) == ([first, other], 1)


def test_the_same_record_among_other_runs_is_another_rating() -> None:
    two, three = rating("r", a="yyyy", b="yyyy"), rating("r", a="yyyy", c="yyyy")
    assert Ratings((two, three)).latest() == [two, three]


def test_files_are_merged_by_time_and_one_file_by_its_lines(tmp_path: Path) -> None:
    first, second, third = rating("r", a="yyyy"), rating("s", "bob", a="yyyy"), rating("r", a="nnnn")
    files = [written(tmp_path / "ann", first, third), written(tmp_path / "bob", second)]
    assert read_ratings(files).standing == (first, second, third)
    assert read_ratings([written(tmp_path / "back", third, first)]).latest() == [first]  # a clock that was set back


def test_a_last_line_that_was_cut_off_is_counted(tmp_path: Path) -> None:
    one = rating("r", a="yyyy")
    path = written(tmp_path / "x.jsonl", one)
    with path.open("a") as file:
        file.write(json.dumps(rating("s", a="yyyy").line())[:-9])
    found = read_ratings([path])
    assert (found.standing, found.torn) == ((one,), 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "thought"}, "kind: expected rating, skip or retraction, found 'thought'"),
        ({"note": None}, "note: expected str, found NoneType"),
        ({"rater": ...}, "missing field 'rater'"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"better": "C"}, "better: 'C' is none of the answers"),
        ({"time": "yesterday"}, "time: expected ISO 8601 with a zone, found 'yesterday'"),
        ({"time": "2025-01-01T00:00:00"}, "time: expected ISO 8601 with a zone"),
        ({"answers": {}}, "answers: there is none"),
        ({"answers": []}, "answers: expected dict, found list"),
        ({"answers": {"AB": {}}}, "answers: 'AB' is none of A, B, C, D, E"),
        ({"answers": {"A": 1}}, "answers: A: expected a JSON object, found int"),
        ({"answers": {"A": {"run": "a"}}}, "answers: A: missing field 'text'"),
        ({"id": "first"}, "'first' occurs twice"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    line = {key: value for key, value in (rating("r", a="yyyy").line() | change).items() if value is not ...}
    path = written(tmp_path / "x.jsonl", rating("q", a="yyyy").line() | {"id": "first"}, line)
    with pytest.raises(InputError, match=r"x\.jsonl:2: ") as raised:
        read_ratings([path])
    assert said in str(raised.value)


def test_answers_and_better_must_fit(tmp_path: Path) -> None:
    line = rating("r", a="yyyy", b="yyyy").line()
    line["answers"]["B"]["run"] = "a"
    for broken, said in (
        (line, "a run occurs twice"),
        (rating("r", a="yyyy").line() | {"better": "A"}, "better: 'A' is none of the answers"),
        (retraction(rating("r", a="yyyy"), "z", "2025-01-01T00:00:00Z"), "which is not above"),
    ):
        with pytest.raises(InputError, match=said):
            read_ratings([written(tmp_path / "x.jsonl", broken)])
    line = rating("r", a="yyyy").line()
    line["answers"]["A"]["true"] = 1
    with pytest.raises(InputError, match="answers: A: true: expected bool or null, found int"):
        read_ratings([written(tmp_path / "x.jsonl", line)])
    with pytest.raises(InputError, match="no such file"):
        read_ratings([tmp_path / "absent"])
