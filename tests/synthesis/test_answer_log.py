"""The append-only log of a teacher's answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.synthesis.answer_log import AnswerLog


def row(record: str, attempt: int = 0, key: str = "k", text: str = "an answer") -> dict[str, Any]:
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


def written_log(path: Path, *rows: dict[str, Any]) -> Path:
    answer_log = AnswerLog(path)
    answer_log.open()
    for answer in rows:
        answer_log.append(answer)
    answer_log.close()
    return path


def test_answers_are_found_by_key_and_a_record_has_its_own(tmp_path: Path) -> None:
    rows_of_a = (row("a"), row("a", 1, text="später\n"))
    path = written_log(tmp_path / "new" / "a.jsonl", rows_of_a[0], row("b", key="other"), rows_of_a[1])
    answer_log = AnswerLog(path)
    assert answer_log.open() == 0
    rows = list(answer_log.rows("a", "k"))
    assert [answer["attempt"] for _, answer in rows] == [0, 1]
    assert answer_log.row_at(rows[1][0])["text"] == "später\n"
    assert list(answer_log.rows("b", "k")) == rows  # the same request for another record
    assert list(answer_log.rows("a", "none")) == []
    offset = answer_log.append(row("c", text="last"))
    assert answer_log.row_at(offset)["text"] == "last"
    assert [at for at, _ in answer_log.rows("c", "k")] == [offset]
    assert list(answer_log.rows("a", "k")) == rows
    assert (answer_log.answers, answer_log.counted, answer_log.characters, answer_log.prompt_tokens) == (4, 4, 160, 40)
    answer_log.close()
    assert len(path.read_text().splitlines()) == 4


@given(st.integers(1, 120))
def test_a_truncated_last_line_is_removed(tmp_path_factory: pytest.TempPathFactory, kept: int) -> None:
    path = written_log(tmp_path_factory.mktemp("truncated") / "a.jsonl", row("a"), row("b"))
    complete = path.read_bytes()
    tail = json.dumps(row("c")).encode()[:kept]
    path.write_bytes(complete + tail)
    reader = AnswerLog(path)
    assert reader.read() == len(complete)
    assert path.read_bytes() == complete + tail  # reading changes nothing
    answer_log = AnswerLog(path)
    assert answer_log.open() == len(tail)
    offset = answer_log.append(row("d"))
    assert offset == len(complete)
    assert answer_log.row_at(offset)["record_id"] == "d"
    answer_log.close()
    assert [json.loads(line)["record_id"] for line in path.read_text().splitlines()] == ["a", "b", "d"]


def test_null_bytes_at_the_end_are_removed(tmp_path: Path) -> None:
    path = written_log(tmp_path / "a.jsonl", row("a"))
    path.write_bytes(path.read_bytes() + b"\0" * 64 + b"\n")
    answer_log = AnswerLog(path)
    assert answer_log.open() == 65
    answer_log.close()


@pytest.mark.parametrize("line", ["{", "[1]", '{"key": "k"}'])
def test_a_broken_line_in_the_middle_is_reported(tmp_path: Path, line: str) -> None:
    path = written_log(tmp_path / "a.jsonl", row("a"), row("b"))
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{second}\n")
    with pytest.raises(InputError, match=r"a\.jsonl:2: not an answer"):
        AnswerLog(path).read()


def test_two_runs_cannot_write_to_one_log(tmp_path: Path) -> None:
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


def test_a_log_without_answers_is_removed(tmp_path: Path) -> None:
    written_log(tmp_path / "folder" / "a.jsonl")
    assert not (tmp_path / "folder").exists()


def test_answers_without_token_counts_are_not_summed(tmp_path: Path) -> None:
    path = written_log(tmp_path / "a.jsonl", row("a") | {"prompt_tokens": None, "completion_tokens": None})
    answer_log = AnswerLog(path)
    answer_log.read()
    assert (answer_log.answers, answer_log.counted, answer_log.characters) == (1, 0, 0)
