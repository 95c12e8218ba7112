"""DynaBench, from a folder in the layout of its repository."""

import logging
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Message, Record
from guardreasoner.sources.dynabench import DynaBench, transcript_messages
from tests.support.hub_folders import stay_offline, write_readme, write_rows


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_offline(tmp_path, monkeypatch)


def row(policy: Any, transcript: str | None, label: str | None, **others: Any) -> dict[str, Any]:
    return {"policy": policy, "transcript": transcript, "label": label, "metadata": "{}", **others}


def write_dynabench(folder: Path, test: list[dict[str, Any]], **train: list[dict[str, Any]]) -> str:
    parts = {"DynaBench": ("test", test), **{name: ("train", rows) for name, rows in train.items()}}
    write_readme(folder, {name: {split: f"{name}.jsonl"} for name, (split, _) in parts.items()})
    for name, (_, rows) in parts.items():
        write_rows(folder / f"{name}.jsonl", rows)
    return str(folder)


RULES = "1. Do not promise refunds.\n2. Be brief."


def test_rows_become_conversations_with_a_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_dynabench(
        tmp_path / "set",
        [
            row(RULES, "User: My lamp broke.\n\nAgent: You get your money back.", "FAIL"),
            row(RULES, "'User': Hello.\n'Agent': Hi.\n'User': Bye.\n'Agent': Bye.", "PASS"),
            row(RULES, "User: Hello.\n\nAgent: Hi.", None),
            row("  ", "User: Hello.\n\nAgent: Hi.", "PASS"),
            row(RULES, "Hello there.", "PASS"),
        ],
    )
    with caplog.at_level(logging.INFO, "guardreasoner"):
        records = list(DynaBench(path).records("test"))
    assert caplog.messages == ["DynaBench: 2 of 5 rows used; the others lack a policy, a label or an author"]
    assert records[0] == Record(
        "DynaBench/000000",
        "My lamp broke.",
        "You get your money back.",
        {"policy": "violates"},
        source="DynaBench",
        policy=RULES,
    )
    assert [message.content for message in records[1].messages] == ["Hello.", "Hi.", "Bye.", "Bye."]
    assert records[1].labels == {"policy": "complies"}


def test_lists_of_rules_are_numbered(tmp_path: Path) -> None:
    path = write_dynabench(
        tmp_path / "set",
        [row(RULES, "User: A\n\nAgent: B", "PASS")],
        DynaBenchTrain=[
            row(["Be kind.", " Be brief. ", ""], "User: A\n\nAgent: B", "PASS"),
            row(["1. Be kind.", "2. Be brief."], "User: C\n\nAgent: D", "FAIL"),
        ],
    )
    records = list(DynaBench(path).records("train"))
    assert [record.policy for record in records] == ["1. Be kind.\n2. Be brief."] * 2
    assert [record.id for record in records] == ["DynaBenchTrain/000000", "DynaBenchTrain/000001"]


def test_the_parts_of_the_training_split_can_be_chosen(tmp_path: Path) -> None:
    one = [row(RULES, "User: A\n\nAgent: B", "PASS")]
    path = write_dynabench(tmp_path / "set", one, DynaBenchTrain=one, DynaBenchSafetyMix=one)
    source = DynaBench(path, parts=("DynaBenchSafetyMix", "DynaBenchTrain"))
    assert [record.source for record in source.records("train")] == ["DynaBenchSafetyMix", "DynaBenchTrain"]
    assert list(DynaBench(path, splits=("test",)).records("train")) == []
    with pytest.raises(InputError, match="parts must be one or more of DynaBenchTrain, DynaBenchSafetyMix"):
        DynaBench(path, parts=("DynaBench",))  # type: ignore[arg-type]


def test_messages_are_split_at_their_authors() -> None:
    assert transcript_messages("User: a\nb\n\nAgent: c\n\nUser: d") == (
        Message("user", "a\nb"),
        Message("assistant", "c"),
        Message("user", "d"),
    )
    assert transcript_messages("Agent: a\n\nAgent: b") == (Message("assistant", "a\n\nb"),)
    assert transcript_messages("User: I am a User: yes") == (Message("user", "I am a User: yes"),)
    assert transcript_messages("Once upon a time\nUser: a") == ()


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ({"label": "MAYBE"}, "label: found 'MAYBE', expected one of 'PASS', 'FAIL', null"),
        ({"policy": [[1]]}, "policy: found list, expected text or a list of texts"),
        ({"transcript": ["User: a"]}, "transcript: found list, expected text"),
    ],
)
def test_an_invalid_row_is_reported(tmp_path: Path, bad: dict[str, Any], what: str) -> None:
    path = write_dynabench(tmp_path / "set", [{**row(RULES, "User: A\n\nAgent: B", "PASS"), **bad}])
    with pytest.raises(InputError) as error:
        list(DynaBench(path).records("test"))
    assert str(error.value) == f"{path} DynaBench/test row 0: {what}"
