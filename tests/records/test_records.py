import json
import logging
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.records import Message, Record, Rollout, ToolCall, read_records, read_rollouts, write_jsonl
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.tasks import GUARD_TASKS, Task, read_tasks

RECORD = Record("a", "Hello?", None, {"request": "unharmful", "response": None}, None, "greetings")
ROLLOUT = Rollout("a", "m", "f00d", 0, 1, "Answers:\nRequest: unharmful")

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    prompt=texts,
    response=st.none() | texts,
    labels=st.dictionaries(texts, st.none() | texts),
    reasoning=st.none() | texts,
    truncated=st.booleans(),
)
def test_records_and_rollouts_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    prompt: str,
    response: str | None,
    labels: dict[str, str | None],
    reasoning: str | None,
    truncated: bool,
) -> None:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    record = Record("a", prompt, response, labels, reasoning)
    rollout = Rollout("a", "m", "f", 0, 0, prompt, truncated=truncated)
    assert write_jsonl(path, [record]) == 1
    assert read_records(path) == [record]
    write_jsonl(path, [rollout])
    assert read_rollouts(path) == [rollout]
    assert ("truncated" in path.read_text().rpartition('"completion"')[2]) == truncated or "truncated" in prompt


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_jsonl(path, [RECORD])
    with pytest.raises(TypeError):
        write_jsonl(path, [RECORD, {"id": object()}])
    assert read_records(path) == [RECORD]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "records.jsonl:2: not valid JSON"),
        ("[1]", "records.jsonl:2: expected a JSON object, found list"),
        ('{"id": "b"}', "records.jsonl:2: missing field 'prompt'"),
        ('{"id": "b", "promt": "x"}', "records.jsonl:2: unknown field 'promt'"),
        ('{"id": 1, "prompt": "x"}', "records.jsonl:2: id: expected str, found int"),
        ('{"id": "b", "prompt": null}', "records.jsonl:2: prompt: expected str, found NoneType"),
        ('{"id": "b", "prompt": "x", "labels": []}', "records.jsonl:2: labels: expected dict, found list"),
        ('{"id": "a", "prompt": "x"}', "record id 'a' occurs twice"),
    ],
)
def test_an_invalid_record_is_reported(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"id": "a", "prompt": "x"}\n' + line + "\n")
    with pytest.raises(InputError) as caught:
        read_records(path)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rollout_needs_every_field(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    path.write_text(json.dumps({"record_id": "a", "model": "m", "fingerprint": "f", "index": 0, "seed": 0}))
    with pytest.raises(InputError, match=r"rollouts.jsonl:1: missing field 'completion'"):
        read_rollouts(path)
    path.write_text(json.dumps({"record_id": "a", "index": True}))
    with pytest.raises(InputError, match="index: expected int, found bool"):
        read_rollouts(path)


@pytest.mark.parametrize("cut", [b'{"record_id": "a", "completion": "half', b'{"record_id": "\xc3', b"\0\0\0", b"{"])
def test_a_truncated_last_line_is_skipped_with_a_warning(
    tmp_path: Path, cut: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_jsonl(path, [ROLLOUT])
    whole = path.read_bytes()
    path.write_bytes(whole + cut)
    with caplog.at_level(logging.WARNING, "guardreasoner"):
        assert read_rollouts(path) == [ROLLOUT]
    assert caplog.messages == [f"{path}:2: truncated line skipped; 1 rollouts read"]
    # ended, further up, alone, or not a rollout but a record: an error
    for content in (whole + cut + b"\n", cut + b"\n" + whole):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"rollouts.jsonl:[12]: not valid"):
            read_rollouts(path)
    path.write_bytes(cut)
    with pytest.raises(InputError, match="has no rollout"):
        read_rollouts(path)
    path.write_bytes(b'{"id": "a", "prompt": "x"}\n' + cut)
    with pytest.raises(InputError, match=r"rollouts.jsonl:2: not valid"):
        read_records(path)


def test_a_last_line_without_newline_is_complete(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_jsonl(path, [ROLLOUT, ROLLOUT])
    path.write_bytes(path.read_bytes().rstrip())
    assert read_rollouts(path) == [ROLLOUT, ROLLOUT]
    assert not caplog.messages
    path.write_text(path.read_text() + "\n[1]")
    with pytest.raises(InputError, match=r"rollouts.jsonl:3: expected a JSON object, found list"):
        read_rollouts(path)


def test_an_unpaired_surrogate_round_trips(tmp_path: Path) -> None:
    record = Record("a", "\ud800 and é")
    write_jsonl(tmp_path / "records.jsonl", [record])
    assert read_records(tmp_path / "records.jsonl") == [record]


def test_missing_and_empty_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_records(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="has no record"):
        read_records(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="has no rollout"):
        read_rollouts(tmp_path / "empty.jsonl")


def test_invalid_utf8_is_reported(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.jsonl:1: not valid UTF-8"):
        list(read_jsonl(tmp_path / "latin.jsonl"))


def test_gold_labels_leave_out_none() -> None:
    assert RECORD.gold() == {"request": "unharmful"}
    assert ROLLOUT.record_id == RECORD.id


def test_a_key_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"id": "a", "prompt": "x", "prompt": "y", "response": null, "labels": {}}\n')
    with pytest.raises(InputError, match=r"records.jsonl:1: .*'prompt' occurs twice"):
        read_records(path)
    (tmp_path / "tasks.json").write_text(
        '[{"name": "a", "name": "b", "key": "A", "question": "q", "labels": ["x", "y"]}]'
    )
    with pytest.raises(InputError, match=r"tasks.json: .*'name' occurs twice"):
        read_tasks(tmp_path)


CALL = Message("assistant", "", (ToolCall("refund", '{"order": 7}'),))

texts = st.text(st.characters(exclude_categories=("Cs",)))
messages = st.one_of(
    st.builds(Message, st.sampled_from(("system", "user", "tool")), texts),
    st.builds(Message, st.just("assistant"), texts, st.lists(st.builds(ToolCall, texts, texts), max_size=2).map(tuple)),
)


@given(st.lists(messages, min_size=1, max_size=6), st.none() | texts.filter(str.strip))
def test_a_conversation_survives_its_file(said: list[Message], policy: str | None) -> None:
    record = Record("a", messages=said, policy=policy, language="de", extra={"team": "north"})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        write_jsonl(path, [record])
        assert read_records(path) == [record]


def test_one_turn_is_prompt_and_response() -> None:
    record = Record("a", "Hello", "Hi")
    assert record.messages == (Message("user", "Hello"), Message("assistant", "Hi"))
    assert (record.prompt, record.response, record.context()) == ("Hello", "Hi", "Hello")
    assert record == Record("a", messages=record.messages)
    assert list(record.as_json()) == ["id", "prompt", "response", "labels", "reasoning", "source"]


def test_the_last_turn_of_a_conversation() -> None:
    said = [Message("user", "Refund me"), CALL, Message("tool", "done"), Message("assistant", "Refunded")]
    record = Record("a", messages=said)
    assert (record.prompt, record.response) == ("Refund me", "Refunded")
    assert record.context() == "Refund me\n\ndone"
    assert Record("a", messages=said[:3]).response is None
    assert not record.is_one_turn
    assert not Record("a", messages=said[:2]).is_one_turn


def test_texts_of_the_last_turn_are_replaced() -> None:
    said = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
    record = Record("a", messages=said)
    expected = Record("a", messages=[*said[:2], Message("user", "x"), Message("assistant", "y")])
    assert record.with_texts("x", "y") == replace(record, prompt="x", response="y") == expected
    assert Record("a", "p").with_texts(response="r") == Record("a", "p", "r")


def test_the_content_key_has_messages_and_policy_and_nothing_else() -> None:
    record = Record("a", "Hello", "Hi")
    assert record.content_key() == Record("b", "Hello", "Hi", {"request": "harmful"}, source="s").content_key()
    others = [
        Record("a", "Hello"),
        Record("a", "Hello", "Hi", policy="1. Be kind."),
        Record("a", messages=[Message("user", "Hello"), Message("tool", "Hi")]),
    ]
    assert len({record.content_key(), *(other.content_key() for other in others)}) == 4


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"id": "a", "messages": []}, "messages: found no message"),
        ({"id": "a", "messages": "hello"}, "messages: expected list, found str"),
        ({"id": "a", "messages": [{"role": "user"}]}, "messages: message 1: expected an object with role and content"),
        ({"id": "a", "messages": [{"role": "king", "content": ""}]}, "messages: message 1: expected a role"),
        ({"id": "a", "messages": [{"role": "user", "content": 7}]}, "messages: message 1: expected a role"),
        ({"id": "a", "messages": [{"role": "user", "content": "a"}], "prompt": "a"}, "found messages and prompt"),
        (
            {"id": "a", "messages": [{"role": "user", "content": "\ud800"}]},
            "messages: message 1: found a lone surrogate",
        ),
        *(({"id": "a", "prompt": "a", "policy": policy}, "policy: found an empty text") for policy in ("", " \n")),
        ({"id": "a", "prompt": "a", "policy": "\ud800"}, "policy: found a lone surrogate"),
        ({"id": "a", "prompt": "a", "extra": {"b": 5}}, "extra.b: expected a text, found a number"),
        ({"id": "a", "prompt": "a", "extra": {"b": "\ud800"}}, "extra.b: found a lone surrogate"),
    ],
)
def test_a_faulty_conversation_is_reported(tmp_path: Path, row: dict[str, object], what: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=f"{path}:1: {what}"):
        read_records(path)


def test_the_speed_of_a_rollout_round_trips(tmp_path: Path) -> None:
    rollouts = [Rollout("a", "m", "f", index, 0, "text", speed) for index, speed in enumerate(("reasoned", "direct"))]
    write_jsonl(tmp_path / "rollouts.jsonl", rollouts)
    assert read_rollouts(tmp_path / "rollouts.jsonl") == rollouts
    rows = [row for _, row in read_jsonl(tmp_path / "rollouts.jsonl")]
    assert "speed" not in rows[0]
    (tmp_path / "rollouts.jsonl").write_text(json.dumps({**rows[0], "speed": "fast"}) + "\n")
    with pytest.raises(InputError, match=r"rollouts\.jsonl:1: speed: found 'fast', expected reasoned or direct"):
        read_rollouts(tmp_path / "rollouts.jsonl")


def test_tasks_stored_without_what_they_judge_are_read(tmp_path: Path) -> None:
    stored = [{key: value for key, value in task.as_json().items() if key != "judges"} for task in GUARD_TASKS]
    own = {"name": "tone", "key": "Tone", "question": "judge it.", "labels": ["rude", "kind"], "positive": "rude"}
    (tmp_path / "tasks.json").write_text(json.dumps([*stored, own]))
    assert read_tasks(tmp_path) == (*GUARD_TASKS, Task("tone", "Tone", "judge it.", ("rude", "kind")))
