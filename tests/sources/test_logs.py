"""Conversations in logs, without labels."""

import json
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.sources.logs import LogCounts, Logs, unwrapped
from guardreasoner.sources.row_parser import Columns
from guardreasoner.tasks import POLICY_TASKS

USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labels_and_reasoning_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "Hi", "labels": 5, "reasoning": "", "id": 7})
    logs = Logs([path])
    assert logs.check() == LogCounts(1, 0)
    (row,) = logs.rows()
    assert (row.place, row.record.id, row.record.labels, row.record.reasoning) == ("a.jsonl:1", "7", {}, None)


@pytest.mark.parametrize(
    "row",
    [
        {"request": {"messages": [USER]}, "response": {"choices": [{"message": ASSISTANT}]}},
        {"messages": [USER], "response": {"choices": [{"message": {"content": "Hello"}}]}},
        {"request": {"messages": [USER]}, "response": "Hello"},
        {"messages": [USER], "response": "Hello"},
        {"messages": [USER, ASSISTANT]},
        {"prompt": "Hi", "response": "Hello"},
    ],
)
def test_every_form_is_the_same_conversation(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,) = Logs([write(tmp_path / "a.jsonl", row)]).rows()
    assert [(message.role, message.content) for message in found.record.messages] == [
        ("user", "Hi"),
        ("assistant", "Hello"),
    ]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"messages": [USER], "response": {"error": "busy"}}, "response.choices: found null"),
        ({"messages": [USER], "response": {"choices": []}}, "response.choices: found 0 choices"),
        ({"messages": [USER], "response": {"choices": [1, 2]}}, "response.choices: found 2 choices"),
        ({"messages": [USER], "response": {"choices": [{"text": "Hello"}]}}, "message: found null"),
        ({"messages": 5, "response": {"choices": []}}, "messages: found a number"),
        ({"request": {"messages": [USER]}, "messages": [USER, ASSISTANT], "response": None}, "messages: found other"),
    ],
)
def test_a_reply_of_another_form_is_a_fault(row: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        unwrapped(row)


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.jsonl", {"prompt": name})
    places = [row.place for row in Logs([str(tmp_path / "*/a.jsonl")]).rows()]
    assert places == [f"{tmp_path}/1/a.jsonl:1", f"{tmp_path}/2/a.jsonl:1"]


def test_a_policy_is_needed_by_a_guard_that_judges_by_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "Hi"}, {"prompt": "Hi", "policy": "Own."})
    with pytest.raises(InputError, match="1 of 2 rows is faulty"):
        Logs([path], tasks=POLICY_TASKS).check()
    logs = Logs([path], tasks=POLICY_TASKS, policy="Be good.")
    assert [row.record.policy for row in logs.rows()] == ["Be good.", "Own."]
    with pytest.raises(InputError, match="no task of the guard uses one"):
        Logs([path], columns=Columns(policy="policy"))
