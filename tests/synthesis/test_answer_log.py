"""The file of paid answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.synthesis.answer_log import AnswerLog


def row(record: str, attempt: int = 0, key: str = "k", text: str = "said") -> dict[str, Any]:
    return {
        "key": key,
        "record_id": record,
        "attempt": attempt,
        "text": text,
        "finish_reason": "stop",
        "faults": [],
        "characters": 40,
        "prompt_tokens": 10,
        "completion_tokens": 5,
    }


def written(path: Path, *rows: dict[str, Any]) -> Path:
    answer_log = AnswerLog(path)
    answer_log.open()
    for one in rows:
        answer_log.append(one)
    answer_log.close()
    return path


def test_answers_are_found_by_record_and_key(tmp_path: Path) -> None:
    path = written(tmp_path / "new" / "a.jsonl", row("a"), row("b", key="other"), row("a", 1, text="später\n"))
    answer_log = AnswerLog(path)
    assert answer_log.open() == 0
    found = list(answer_log.rows("a", "k"))
    assert [one["attempt"] for _, one in found] == [0, 1]
    assert answer_log.at(found[1][0])["text"] == "später\n"
    assert list(answer_log.rows("b", "k")) == list(answer_log.rows("c", "k")) == []
    place = answer_log.append(row("c", text="last"))
    assert answer_log.at(place)["text"] == "last"
    assert (answer_log.answers, answer_log.counted, answer_log.characters, answer_log.prompt_tokens) == (4, 4, 160, 40)
    answer_log.close()
    assert len(path.read_text().splitlines()) == 4


@given(st.integers(1, 120))
def test_a_torn_last_line_is_cut_off(tmp_path_factory: pytest.TempPathFactory, torn: int) -> None:
    path = written(tmp_path_factory.mktemp("torn") / "a.jsonl", row("a"), row("b"))
    whole = path.read_bytes()
    tail = json.dumps(row("c")).encode()[:torn]
    path.write_bytes(whole + tail)
    reader = AnswerLog(path)
    assert reader.read() == len(whole)
    assert path.read_bytes() == whole + tail  # reading mends nothing
    answer_log = AnswerLog(path)
    assert answer_log.open() == len(tail)
    place = answer_log.append(row("d"))
    assert place == len(whole)
    assert answer_log.at(place)["record_id"] == "d"
    answer_log.close()
    assert [json.loads(line)["record_id"] for line in path.read_text().splitlines()] == ["a", "b", "d"]


def test_what_a_failing_disk_leaves_at_the_end_is_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", row("a"))
    path.write_bytes(path.read_bytes() + b"\0" * 64 + b"\n")
    answer_log = AnswerLog(path)
    assert answer_log.open() == 65
    answer_log.close()


@pytest.mark.parametrize("line", ["{", "[1]", '{"key": "k"}'])
def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "a.jsonl", row("a"), row("b"))
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{second}\n")
    with pytest.raises(InputError, match=r"a\.jsonl:2: not an answer"):
        AnswerLog(path).read()


def test_two_runs_cannot_pay_for_the_same(tmp_path: Path) -> None:
    answer_log = AnswerLog(tmp_path / "a.jsonl")
    answer_log.open()
    with pytest.raises(InputError, match="another run is writing here"):
        AnswerLog(tmp_path / "a.jsonl").open()
    answer_log.append(row("a"))
    answer_log.close()
    again = AnswerLog(tmp_path / "a.jsonl")
    assert again.open() == 0
    assert again.answers == 1
    again.close()


def test_a_run_without_an_answer_leaves_nothing(tmp_path: Path) -> None:
    written(tmp_path / "folder" / "a.jsonl")
    assert not (tmp_path / "folder").exists()


def test_uncounted_answers_measure_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", row("a") | {"prompt_tokens": None, "completion_tokens": None})
    answer_log = AnswerLog(path)
    answer_log.read()
    assert (answer_log.answers, answer_log.counted, answer_log.characters) == (1, 0, 0)
