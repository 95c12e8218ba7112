"""Conversations stored as lists of messages."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.sources.conversations import LeftOut, Turn, read_turn
from guardreasoner.sources.files import Files
from guardreasoner.sources.row_parser import Columns


def openai(*texts: str, system: str | None = None) -> list[dict[str, Any]]:
    """Return messages of user and assistant in turn."""
    before = [] if system is None else [{"role": "system", "content": system}]
    return before + [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (openai("How?"), Turn("How?", None)),
        (openai("How?", "So."), Turn("How?", "So.")),
        (openai("How?", "So.", system="Be good."), Turn("How?", "So.", True)),
        ([{"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}], Turn("How?", "So.")),
        (
            [{"role": "user", "content": [{"type": "text", "text": "How"}, {"type": "text", "text": "?"}]}],
            Turn("How?", None),
        ),
        (openai("How?", "So.", "And?"), LeftOut("a conversation of more than one turn")),
        (openai("How?", "So.", "And?", "So."), LeftOut("a conversation of more than one turn")),
        ([*openai("How?"), *openai("How?")], LeftOut("a conversation of more than one turn")),
        ([*openai("How?", "So."), {"role": "tool", "content": "1"}], LeftOut("a conversation with tool calls")),
        (
            [*openai("How?"), {"role": "assistant", "content": None, "tool_calls": [{}]}],
            LeftOut("a conversation with tool calls"),
        ),
    ],
)
def test_conversations_of_one_turn(messages: Any, expected: Turn | LeftOut) -> None:
    assert read_turn(messages) == expected


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "expected a list of messages"),
        ("How?", "expected a list of messages"),
        ({"role": "user"}, "expected a list of messages"),
        (["How?"], "message 1: expected an object with role and content"),
        ([{"content": "How?"}], "message 1: found the role 'None', expected system, user or assistant"),
        ([{"role": "critic", "content": "How?"}], "message 1: found the role 'critic', expected system, user"),
        ([{"role": ["user"], "content": "How?"}], "message 1: found the role"),
        ([{"role": "user"}], "message 1: the content is missing, or is not text"),
        ([{"role": "user", "content": 3}], "message 1: the content is missing, or is not text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "message 1: found a part that is not text"),
        ([{"role": "assistant", "content": "So."}], "found no message of the user"),
    ],
)
def test_what_is_no_conversation_is_named(messages: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        read_turn(messages)


def write(path: Path, *rows: dict[str, Any]) -> str:
    """Write rows with a label; return the path."""
    lines = (json.dumps({"labels": {"request": "harmful"}, **row}) + "\n" for row in rows)
    path.write_text("".join(lines))
    return str(path)


@pytest.mark.parametrize("name", ["messages", "conversations", "a.b"])
def test_a_column_of_conversations(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    values: list[Any] = [openai("One?", system="Be good."), openai("Two?", "So."), openai("Three?", "So.", "And?")]
    rows = [{"a": {"b": value}} if name == "a.b" else {name: value} for value in values]
    files = Files(train=write(tmp_path / "a.jsonl", *rows), columns=Columns(messages=name))
    with caplog.at_level(logging.INFO, "guardreasoner"):
        records = list(files.records("train"))
    assert [(record.prompt, record.response) for record in records] == [("One?", None), ("Two?", "So.")]
    assert "1 of 3 rows left out: a conversation of more than one turn" in caplog.messages
    assert "the system messages of 1 rows are not part of their records" in caplog.messages


def test_a_list_in_the_column_of_the_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": openai("One?"), "response": "So."}, {"prompt": openai("Two?", "No.")}, {"prompt": "Three?"}]
    records = list(Files(train=write(tmp_path / "a.jsonl", *rows)).records("train"))
    assert [(r.prompt, r.response) for r in records] == [("One?", "So."), ("Two?", "No."), ("Three?", None)]


def test_faults_and_files_without_a_usable_conversation(tmp_path: Path) -> None:
    both = {"messages": openai("One?", "So."), "response": "No."}
    path = write(tmp_path / "a.jsonl", {"messages": openai("One?")}, {"messages": "One?"}, both, {"messages": [{}]})
    with pytest.raises(InputError) as caught:
        list(Files(train=path, columns=Columns(messages="messages")).records("train"))
    assert [detail.removeprefix(path) for detail in caught.value.details] == [
        ":2: messages: found 'One?', expected a list of messages",
        ":3: response: the messages hold a response too, expected only one",
        ":4: messages: message 1: found the role 'None', expected system, user or assistant",
    ]
    path = write(tmp_path / "b.jsonl", {"messages": openai("One?", "So.", "And?")})
    with pytest.raises(InputError, match="none of 1 rows can be used: a conversation of more than one turn"):
        list(Files(train=path, columns=Columns(messages="messages")).records("train"))
    with pytest.raises(InputError, match=r"columns\.prompt: .* has no column 'prompt'") as hinted:
        list(Files(train=path).records("train"))
    assert hinted.value.hint == "data.source.columns.messages names a list of messages"
