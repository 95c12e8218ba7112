import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.prompts import answer_block, render
from guardreasoner.records import Record
from guardreasoner.sources.predictions import gold_labels, read_predictions, split_prompt
from guardreasoner.tasks import GUARD_TASKS

HELLO = Record("", "Hello?")


def row(record: Record = HELLO, label: str = "unharmful", **more: Any) -> dict[str, Any]:
    return {"prompt": render(record, GUARD_TASKS), "label": label, "predict": "Request: unharmful", **more}


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(values) + "\n" for values in rows))
    return path


@given(
    prompt=st.text(),
    response=st.none() | st.text().filter(lambda text: text != "None" and "\n\nAI assistant:\n" not in text),
    opening=st.none() | st.sampled_from(["", "Judge this.\n"]),
)
def test_split_prompt_inverts_render(prompt: str, response: str | None, opening: str | None) -> None:
    text = render(Record("", prompt, response), GUARD_TASKS, opening)
    assert split_prompt(text, GUARD_TASKS, "here") == (prompt, response)


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
