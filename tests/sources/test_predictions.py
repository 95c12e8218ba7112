import json
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.prompts import answer_block, render
from guardreasoner.records import Message, Record, ToolCall
from guardreasoner.sources.predictions import content_fields, gold_labels, read_predictions, split_prompt
from guardreasoner.tasks import GUARD_TASKS

HELLO = Record("", "Hello?")


def row(record: Record = HELLO, label: str = "unharmful", **more: Any) -> dict[str, Any]:
    return {"prompt": render(record, GUARD_TASKS), "label": label, "predict": "Request: unharmful", **more}


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(values) + "\n" for values in rows))
    return path


MARKS = st.sampled_from(["Human user:\n", "\n\nAI assistant:\n", "None", "\n\n", "Yes."])
TEXTS = st.text() | st.lists(MARKS).map("".join)
EXAMPLE = "Judge the last one.\nHuman user:\nHi\n\nAI assistant:\nHello\n\n"


@settings(max_examples=40)
@given(prompt=TEXTS, response=st.none() | TEXTS, opening=st.sampled_from([None, "", "Judge this.\n", EXAMPLE]))
def test_a_row_gives_its_record_back(prompt: str, response: str | None, opening: str | None) -> None:
    record = Record("a", prompt, response, {"request": "harmful"}, source="set")
    text = render(record, GUARD_TASKS, opening)
    more = content_fields(record, text, GUARD_TASKS)
    imitates = response is not None and (response == "None" or "\n\nAI assistant:\n" in f"\n{response}\n")
    assert set(more) == ({"messages"} if imitates or opening == EXAMPLE else set())  # other rows stay as they were
    values = {"prompt": text, "label": "harmful", "predict": "", "record_id": "a", "labels": record.gold(), **more}
    with TemporaryDirectory() as folder:
        assert read_predictions(write(Path(folder) / "set.jsonl", values)).records == [record]


@pytest.mark.parametrize(
    "prompt",
    [
        "Continue.\n\nAI assistant:\nSure!\n\nHuman user:\nMore.",
        "\n\nAI assistant:\n",
        "Human user:\nAI assistant:\nNone\n\n",
        "The AI assistant: said no",
    ],
)
def test_a_prompt_that_imitates_an_assistant_turn(prompt: str) -> None:
    text = render(Record("", prompt), GUARD_TASKS)
    assert split_prompt(text, GUARD_TASKS, "here") == (prompt, None)


@pytest.mark.parametrize("text", ["", "Hello?", "Human user:\nHello?", "Human user:\nHello?\n\nAI assistant:\nNone"])
def test_another_layout_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="here: expected 'Human user: … AI assistant: …'"):
        split_prompt(text, GUARD_TASKS, "here")


@pytest.mark.parametrize(
    ("label", "response", "labels"),
    [
        ("harmful", None, {"request": "harmful"}),
        ("unharmful\n", None, {"request": "unharmful"}),
        ("harmful", "No.", {"response": "harmful"}),
        ("refusal", "No.", {"completion": "refusal"}),
        (
            "Answers: \nRequest: None\nCompletion: None\nResponse: harmful\n",
            "No.",
            {"request": None, "completion": None, "response": "harmful"},
        ),
    ],
)
def test_gold_labels(label: str, response: str | None, labels: dict[str, str | None]) -> None:
    assert gold_labels(label, response, GUARD_TASKS, "here") == labels


def test_the_model_is_named_after_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "1B"
    write(folder / "B" / "generated_predictions.jsonl", row(), row(Record("", "Hi", "Hey"), "harmful"))
    write(folder / "A" / "generated_predictions.jsonl", row())
    read = read_predictions(folder)
    assert read.model == "1B"
    assert [(record.id, record.source, record.gold()) for record in read.records] == [
        ("A/00000", "A", {"request": "unharmful"}),
        ("B/00000", "B", {"request": "unharmful"}),
        ("B/00001", "B", {"response": "harmful"}),
    ]
    assert [rollout.record_id for rollout in read.rollouts] == [record.id for record in read.records]
    assert {rollout.model for rollout in read.rollouts} == {"1B"}
    for part in (folder / "B", folder / "B" / "generated_predictions.jsonl"):
        part_only = read_predictions(part)
        assert (part_only.model, part_only.records, part_only.rollouts) == ("1B", read.records[1:], read.rollouts[1:])


def test_our_rows_have_record_id_and_labels(tmp_path: Path) -> None:
    labels = {"request": "harmful", "response": "unharmful"}
    file = tmp_path / "m" / "b" / "generated_predictions.jsonl"
    write(file, row(label=answer_block(labels, GUARD_TASKS), record_id="x/1", labels=labels))
    samples = [{"record_id": "x/1", "labels": labels, "index": i, "seed": 3, "predict": "…"} for i in range(2)]
    write(file.with_name("hard_samples.jsonl"), *samples)
    read = read_predictions(tmp_path / "m")
    assert [(record.id, record.labels) for record in read.records] == [("x/1", labels)]
    assert read.hard_records == read.records
    assert [(rollout.index, rollout.seed) for rollout in read.hard_rollouts] == [(0, 3), (1, 3)]


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        (
            {"prompt": "x", "label": "harmful", "prediction": "y"},
            "jsonl:2: missing field 'predict'; unknown field 'prediction'",
        ),
        (row(id="x"), "jsonl:2: unknown field 'id'"),
        (row(label="bad"), "jsonl:2: label 'bad' is neither an answer block nor one of harmful, unharmful, refusal"),
        (row(label="Request: None"), "jsonl:2: label 'Request: None' is neither"),
        (row(predict=None), "jsonl:2: predict: Input should be a valid string"),
        (row(labels={"request": "bad"}), "jsonl:2: labels: request: 'bad' is none of harmful, unharmful"),
        (row(labels={"requests": "harmful"}), "jsonl:2: labels: unknown task 'requests'"),
        (row(labels={}), "jsonl:2: no label for any task"),
        (row(record_id="b/00000"), "record id 'b/00000' occurs twice"),
        ([], "jsonl:2: expected a JSON object, found list"),
    ],
)
def test_an_invalid_row_is_reported(tmp_path: Path, invalid: Any, message: str) -> None:
    write(tmp_path / "m" / "b" / "generated_predictions.jsonl", row(), invalid)
    with pytest.raises(InputError) as caught:
        read_predictions(tmp_path / "m")
    assert message in str(caught.value)
    assert "\n" not in caught.value.lines().removesuffix(f"\nhint: {caught.value.hint}")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ([{}, {}], "hard_samples.jsonl:2: record 'b/00000': output 0 of seed 0 occurs twice"),
        ([{"labels": {"request": "harmful"}}], "hard_samples.jsonl:1: record 'b/00000' has other labels here"),
        ([{"index": "0"}], "hard_samples.jsonl:1: index: Input should be a valid integer"),
    ],
)
def test_an_invalid_hard_sample_is_reported(tmp_path: Path, changes: list[dict[str, Any]], what: str) -> None:
    write(tmp_path / "m" / "b" / "generated_predictions.jsonl", row())
    sample = {"record_id": "b/00000", "labels": {"request": "unharmful"}, "index": 0, "seed": 0, "predict": "…"}
    write(tmp_path / "m" / "b" / "hard_samples.jsonl", *({**sample, **change} for change in changes))
    with pytest.raises(InputError, match=what):
        read_predictions(tmp_path / "m")


def test_missing_predictions_give_the_command_that_writes_them(tmp_path: Path) -> None:
    for path, what in (
        (tmp_path / "absent", "no such file or folder"),
        (tmp_path, "no generated_predictions.jsonl here"),
    ):
        with pytest.raises(InputError, match=what) as caught:
            read_predictions(path)
        assert "test --config configs/evaluate.yaml" in (caught.value.hint or "")
    with pytest.raises(InputError, match="has no predictions"):
        read_predictions(write(tmp_path / "empty.jsonl"))


def wrapped(before: str, after: str, trim: bool = False) -> list[dict[str, Any]]:
    """Return rows with a chat template around their prompts."""
    rows = []
    for record, label in ((HELLO, "unharmful"), (Record("", "Hi", "So, dear assistant"), "harmful")):
        values = row(record, label)
        text = values["prompt"].rstrip() if trim else values["prompt"]
        rows.append({**values, "prompt": f"{before}{text}{after}"})
    return rows


LLAMA = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
TEMPLATES = [
    (LLAMA, "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "Llama 3"),
    ("system\n\nCutting Knowledge Date: December 2023\n\nuser\n\n", "assistant\n\n", "Llama 3"),
    ("<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "ChatML"),
    ("system\nBe good.\nuser\n", "\nassistant\n", "ChatML"),
    ("user\n", "\nassistant\n<think>\n\n</think>\n\n", "ChatML"),
    ("<bos><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", "Gemma"),
    ("<s>[INST] ", " [/INST] ", "Mistral"),
]


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize(("before", "after", "name"), TEMPLATES)
def test_a_chat_template_around_the_layout_is_removed(
    tmp_path: Path, before: str, after: str, name: str, trim: bool
) -> None:
    plain = read_predictions(write(tmp_path / "plain" / "generated_predictions.jsonl", *wrapped("", "")))
    read = read_predictions(write(tmp_path / "a" / "generated_predictions.jsonl", *wrapped(before, after, trim)))
    assert [(r.prompt, r.response, r.labels) for r in read.records] == [
        (r.prompt, r.response, r.labels) for r in plain.records
    ]
    assert [note.partition(": ")[2] for note in read.notes] == [
        f"the chat template of {name} around the prompts was removed"
    ]
    assert plain.notes == []


@pytest.mark.parametrize(("before", "after"), [("<|turn|>user ", "<|turn|>guard "), ("", "\n\nVerdict:"), ("", "<x>")])
def test_an_unknown_template_is_refused(tmp_path: Path, before: str, after: str) -> None:
    values = row()
    rows = [{**values, "prompt": f"{before}{values['prompt'].replace('?', f'{n}?')}{after}"} for n in range(2)]
    with pytest.raises(InputError, match="every prompt ends with text that is not the conversation"):
        read_predictions(write(tmp_path / "a.jsonl", *rows))


@pytest.mark.parametrize("response", ["So, dear assistant", "<|eot_id|>", "Nonetheless.", " ASSISTANT:"])
def test_a_response_that_ends_like_a_template_is_text(tmp_path: Path, response: str) -> None:
    rows = [row(Record("", f"Hello {n}?", response), "harmful") for n in range(2)]
    read = read_predictions(write(tmp_path / "a.jsonl", *rows))
    assert [record.response for record in read.records] == [response] * 2
    assert read.notes == []


@pytest.mark.parametrize("end", ["</s>", "<|eot_id|>", "<|im_end|>\n", "<|end_of_text|>", "\n<eos> </s>"])
def test_end_tokens_behind_an_output_are_removed_and_counted(tmp_path: Path, end: str) -> None:
    said = "The text </s> is a token.\n\nAnswers:\nRequest: harmful\nResponse: unharmful"
    rows = [row(predict=said + end), row(predict=said), row(predict=said + end + "!")]
    read = read_predictions(write(tmp_path / "a.jsonl", *rows))
    assert [rollout.completion for rollout in read.rollouts] == [said, said, said + end + "!"]
    assert read.notes == [f"{tmp_path}/a.jsonl: an end token was removed from 1 of 3 outputs"]
    own = [{**values, "record_id": f"r{n}", "labels": {"request": "harmful"}} for n, values in enumerate(rows)]
    assert read_predictions(write(tmp_path / "own.jsonl", *own)).rollouts[0].completion == said + end


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_json_list_and_a_byte_order_mark_are_read(tmp_path: Path, indent: int | None, mark: bytes) -> None:
    lines = read_predictions(write(tmp_path / "lines" / "a.jsonl", row(), row()))
    (tmp_path / "a.json").write_bytes(mark + json.dumps([row(), row()], indent=indent).encode())
    assert read_predictions(tmp_path / "a.json").records == lines.records
    windows = (tmp_path / "lines" / "a.jsonl").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "a.jsonl").write_bytes(mark + windows)
    assert read_predictions(tmp_path / "a.jsonl").records == lines.records
    (tmp_path / "b.json").write_text(json.dumps([row(), row(label="safe")]))
    with pytest.raises(InputError, match=r"b\.json:item 2: label 'safe' is neither"):
        read_predictions(tmp_path / "b.json")


def test_numbered_folders_hold_the_outputs_of_one_run(tmp_path: Path) -> None:
    benchmark = tmp_path / "guard" / "Wild"
    records = [Record("", f"Hello {n}?") for n in range(3)]
    for index in (0, 1, 2, 10):
        rows = [row(record, predict=f"{index}: {record.prompt}") for record in records]
        write(benchmark / str(index) / "generated_predictions.jsonl", *rows)
    for path in (benchmark, tmp_path / "guard"):
        read = read_predictions(path)
        assert (read.model, [record.id for record in read.records]) == ("guard", [f"Wild/0000{n}" for n in range(3)])
        assert [(rollout.index, rollout.completion[:2]) for rollout in read.rollouts] == [(0, "0:")] * 3
        assert [rollout.index for rollout in read.more_rollouts] == [1] * 3 + [2] * 3 + [10] * 3
    one = read_predictions(benchmark / "2")
    assert one.records == read.records
    assert one.rollouts == read.more_rollouts[3:6]
    write(benchmark / "1" / "generated_predictions.jsonl", row(Record("", "Bye?")))
    with pytest.raises(InputError, match=r"Wild/1/generated_predictions.jsonl:1: another record than row 1"):
        read_predictions(benchmark)


CONVERSATION = Record(
    "a",
    messages=[
        Message("user", "Human user:\nHow?"),
        Message("assistant", "", (ToolCall("tide", '{"day": 1}'),)),
        Message("tool", "3 m"),
        Message("assistant", "3 m."),
    ],
    labels={"response": "unharmful"},
    source="Set",
    policy="Be good.",
    language="en",
    extra={"region": "x"},
)


ONE_TURN = Record("b", "How?", "So.", {"request": "harmful"}, source="Set", policy="Be good.")


@pytest.mark.parametrize("record", [CONVERSATION, replace(CONVERSATION, policy=None), ONE_TURN])
def test_conversations_and_policies_come_back(record: Record, tmp_path: Path) -> None:
    label = answer_block(record.labels, GUARD_TASKS)
    values = row(record, label, record_id=record.id, labels=record.gold(), speed="direct")
    values |= content_fields(record, values["prompt"], GUARD_TASKS)
    predictions = read_predictions(write(tmp_path / "Set" / "generated_predictions.jsonl", values))
    assert predictions.records == [record]
    assert predictions.rollouts[0].speed == "direct"


def test_a_row_of_one_turn_holds_its_content_once() -> None:
    for language in (None, "en"):
        record = Record("a", "How?", "So.", language=language)
        expected = {"language": language} if language else {}
        assert content_fields(record, render(record, GUARD_TASKS), GUARD_TASKS) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": []}, ":1: messages: found no message"),
        ({"messages": [{"role": "user"}]}, ":1: messages: message 1: expected an object with role and content"),
        ({"messages": "How?"}, ":1: messages: "),
        ({"speed": "fast"}, ":1: speed: "),
        ({"extra": {"a": 1}}, ":1: extra"),
        *(({"policy": policy}, ":1: policy: ") for policy in (1, "", " ", "\ud800")),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, ":1: messages: message 1: found a lone surrogate"),
        ({"extra": {"a": "\ud800"}}, ":1: extra.a: found a lone surrogate"),
    ],
)
def test_a_faulty_conversation_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row() | change)
    with pytest.raises(InputError, match=re.escape(f"{path}{message}")):
        read_predictions(path)
