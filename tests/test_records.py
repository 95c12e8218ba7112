import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Rollout, read_jsonl, read_records, read_rollouts, write_jsonl
from guardreasoner.tasks import read_tasks

RECORD = Record("a", "Hello?", None, {"request": "unharmful", "response": None}, None, "greetings")
ROLLOUT = Rollout("a", "m", "f00d", 0, 1, "Answers:\nRequest: unharmful")

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    prompt=texts,
    response=st.none() | texts,
    labels=st.dictionaries(texts, st.none() | texts),
    reasoning=st.none() | texts,
)
def test_records_and_rollouts_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    prompt: str,
    response: str | None,
    labels: dict[str, str | None],
    reasoning: str | None,
) -> None:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    record = Record("a", prompt, response, labels, reasoning)
    rollout = Rollout("a", "m", "f", 0, 0, prompt)
    assert write_jsonl(path, [record]) == 1
    assert read_records(path) == [record]
    write_jsonl(path, [rollout])
    assert read_rollouts(path) == [rollout]


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
