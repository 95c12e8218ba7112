"""The file of paid answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.modules.ledger import Ledger


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
    ledger = Ledger(path)
    ledger.open()
    for one in rows:
        ledger.append(one)
    ledger.close()
    return path


def test_answers_are_found_by_record_and_key(tmp_path: Path) -> None:
    path = written(tmp_path / "new" / "a.jsonl", row("a"), row("b", key="other"), row("a", 1, text="später\n"))
    ledger = Ledger(path)
    assert ledger.open() == 0
    found = list(ledger.rows("a", "k"))
    assert [one["attempt"] for _, one in found] == [0, 1]
    assert ledger.at(found[1][0])["text"] == "später\n"
    assert list(ledger.rows("b", "k")) == list(ledger.rows("c", "k")) == []
    place = ledger.append(row("c", text="last"))
    assert ledger.at(place)["text"] == "last"
    assert (ledger.answers, ledger.counted, ledger.characters, ledger.prompt_tokens) == (4, 4, 160, 40)
    ledger.close()
    assert len(path.read_text().splitlines()) == 4


@given(st.integers(1, 120))
def test_a_torn_last_line_is_cut_off(tmp_path_factory: pytest.TempPathFactory, torn: int) -> None:
    path = written(tmp_path_factory.mktemp("torn") / "a.jsonl", row("a"), row("b"))
    whole = path.read_bytes()
    tail = json.dumps(row("c")).encode()[:torn]
    path.write_bytes(whole + tail)
    reader = Ledger(path)
    assert reader.read() == len(whole)
    assert path.read_bytes() == whole + tail  # reading mends nothing
    ledger = Ledger(path)
    assert ledger.open() == len(tail)
    place = ledger.append(row("d"))
    assert place == len(whole)
    assert ledger.at(place)["record_id"] == "d"
    ledger.close()
    assert [json.loads(line)["record_id"] for line in path.read_text().splitlines()] == ["a", "b", "d"]


def test_what_a_failing_disk_leaves_at_the_end_is_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", row("a"))
    path.write_bytes(path.read_bytes() + b"\0" * 64 + b"\n")
    ledger = Ledger(path)
    assert ledger.open() == 65
    ledger.close()


@pytest.mark.parametrize("line", ["{", "[1]", '{"key": "k"}'])
def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "a.jsonl", row("a"), row("b"))
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{second}\n")
    with pytest.raises(InputError, match=r"a\.jsonl:2: not an answer"):
        Ledger(path).read()


def test_two_runs_cannot_pay_for_the_same(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.open()
    with pytest.raises(InputError, match="another run is writing here"):
        Ledger(tmp_path / "a.jsonl").open()
    ledger.append(row("a"))
    ledger.close()
    again = Ledger(tmp_path / "a.jsonl")
    assert again.open() == 0
    assert again.answers == 1
    again.close()


def test_a_run_without_an_answer_leaves_nothing(tmp_path: Path) -> None:
    written(tmp_path / "folder" / "a.jsonl")
    assert not (tmp_path / "folder").exists()


def test_uncounted_answers_measure_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", row("a") | {"prompt_tokens": None, "completion_tokens": None})
    ledger = Ledger(path)
    ledger.read()
    assert (ledger.answers, ledger.counted, ledger.characters) == (1, 0, 0)
