"""WildGuardMix, BeaverTails, ToxicChat and GuardReasonerTrain, from folders in the layout of their repositories."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.prompts import conversation, instruction
from guardreasoner.records import Record
from guardreasoner.sources import Identified
from guardreasoner.sources.aegis import Aegis
from guardreasoner.sources.beavertails import BeaverTails
from guardreasoner.sources.guardreasoner_train import PARTS, GuardReasonerTrain
from guardreasoner.sources.toxicchat import ToxicChat
from guardreasoner.sources.wildguard import WildGuardMix
from guardreasoner.tasks import GUARD_TASKS
from tests.support.hub_folders import stay_offline, write_readme, write_rows


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_offline(tmp_path, monkeypatch)


def wildguard_row(prompt: str, response: str | None, *labels: str | None, **others: Any) -> dict[str, Any]:
    names = ("prompt_harm_label", "response_refusal_label", "response_harm_label")
    row = {"prompt": prompt, "adversarial": False, "response": response, "subcategory": "benign"}
    return {**row, **dict(zip(names, labels, strict=True)), **others}


def write_wildguard(folder: Path, *train: Mapping[str, Any], test: tuple[Mapping[str, Any], ...] = ()) -> str:
    files = {"train": "train/wildguard_train.parquet", "test": "test/wildguard_test.parquet"}
    write_readme(folder, {f"wildguard{split}": {split: file} for split, file in files.items()})
    write_rows(folder / files["train"], train or [wildguard_row("A?", "B.", "harmful", "refusal", "unharmful")])
    write_rows(folder / files["test"], test or [wildguard_row("T?", "B.", "harmful", "refusal", "unharmful")])
    return str(folder)


def test_wildguard_has_three_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_wildguard(
        tmp_path / "set",
        wildguard_row("One?", "No.", "harmful", "refusal", "unharmful"),
        wildguard_row("Two?", "Yes.", "unharmful", "compliance", "harmful", adversarial=True),
        wildguard_row("Three?", None, "harmful", None, None),
        wildguard_row("Four?", "Hm.", None, None, None),
        wildguard_row("Five?", "", "harmful", "refusal", None),
        wildguard_row("Six?", "Hm.", None, "refusal", None),
    )
    source = WildGuardMix(path)
    with caplog.at_level(logging.INFO, "guardreasoner"):
        records = list(source.records("train"))
    assert caplog.messages == ["WildGuardTrain: 5 of 6 rows used; the others have no label"]
    name = "WildGuardTrain"
    assert records == [
        Record(
            f"{name}/000000",
            "One?",
            "No.",
            {"request": "harmful", "completion": "refusal", "response": "unharmful"},
            source=name,
        ),
        Record(
            f"{name}/000001",
            "Two?",
            "Yes.",
            {"request": "unharmful", "completion": "compliance", "response": "harmful"},
            source=name,
        ),
        Record(f"{name}/000002", "Three?", None, {"request": "harmful"}, source=name),
        Record(f"{name}/000004", "Five?", None, {"request": "harmful"}, source=name),
        Record(
            f"{name}/000005", "Six?", "Hm.", {"request": None, "completion": "refusal", "response": None}, source=name
        ),
    ]
    assert list(source.records("train")) == records
    assert [record.id for record in source.records("test")] == ["WildGuardTest/000000"]
    assert list(source.records("validation")) == []


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt_harm_label": "bad"}, "prompt_harm_label: found 'bad', expected one of 'harmful', 'unharmful', null"),
        (
            {"response_refusal_label": "harmful"},
            "response_refusal_label: found 'harmful', expected one of 'refusal', 'compliance', null",
        ),
        ({"response_harm_label": ""}, "response_harm_label: found '', expected one of 'harmful', 'unharmful', null"),
        ({"prompt": None}, "prompt: found null, expected text"),
    ],
)
def test_an_invalid_wildguard_row_is_reported(tmp_path: Path, row: dict[str, Any], what: str) -> None:
    good = wildguard_row("One?", "No.", "harmful", "refusal", "unharmful")
    path = write_wildguard(tmp_path / "set", good, {**good, **row})
    with pytest.raises(InputError) as raised:
        list(WildGuardMix(path).records("train"))
    assert str(raised.value) == f"{path} wildguardtrain/train row 1: {what}"


def test_a_missing_column_is_reported(tmp_path: Path) -> None:
    row = wildguard_row("One?", "No.", "harmful", "refusal", "unharmful")
    del row["response_harm_label"]
    path = write_wildguard(tmp_path / "set", row)
    with pytest.raises(InputError, match="wildguardtrain/train: no column 'response_harm_label', found prompt, adv"):
        list(WildGuardMix(path).records("train"))


def test_validation_records_are_selected_by_a_hash_of_the_prompt(tmp_path: Path) -> None:
    rows = [wildguard_row(f"{number // 2} ?", None, "harmful", None, None) for number in range(100)]
    source = WildGuardMix(write_wildguard(tmp_path / "set", *rows), validation_share=0.3)
    train, validation = list(source.records("train")), list(source.records("validation"))
    assert len(train) + len(validation) == 100
    assert 10 < len(validation) < 60
    assert not {record.prompt for record in train} & {record.prompt for record in validation}
    assert [record.id for record in train] == sorted(record.id for record in train)


def test_only_the_requested_splits_are_provided(tmp_path: Path) -> None:
    source = WildGuardMix(write_wildguard(tmp_path / "set"), splits=["test"], validation_share=0.5)
    assert [len(list(source.records(split))) for split in ("train", "validation", "test")] == [0, 0, 1]


@pytest.mark.parametrize("kind", [WildGuardMix, BeaverTails, ToxicChat, Aegis])
def test_invalid_arguments_are_refused(kind: type) -> None:
    name = kind.__name__
    assert isinstance(kind(), Identified)  # creating a source reads no files
    for splits in ("test", [], ["test", "test"], ["dev"]):
        with pytest.raises(InputError) as raised:
            kind(splits=splits)
        expected = f"{name}: splits must be one or more of train, validation, test, each once, got {splits!r}"
        assert str(raised.value) == expected
    with pytest.raises(InputError, match=rf"{name}: validation_share must be in \[0, 1\), got 1"):
        kind(validation_share=1)


def test_beavertails_labels_the_response(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    files = {f"30k_{split}": f"round0/30k/{split}.jsonl.gz" for split in ("train", "test")}
    write_readme(folder, {"default": files})
    row = {"prompt": "One?", "response": "No.", "category": {"animal_abuse": False}, "is_safe": True}
    write_rows(folder / files["30k_train"], [row, {**row, "is_safe": False, "response": ""}])
    write_rows(folder / files["30k_test"], [row])
    source = BeaverTails(str(folder))
    assert list(source.records("train")) == [
        Record("BeaverTailsTrain/000000", "One?", "No.", {"response": "unharmful"}, source="BeaverTailsTrain"),
        Record("BeaverTailsTrain/000001", "One?", "", {"response": "harmful"}, source="BeaverTailsTrain"),
    ]
    assert [record.id for record in source.records("test")] == ["BeaverTailsTest/000000"]
    assert list(source.records("validation")) == []
    write_rows(folder / files["30k_test"], [{**row, "is_safe": None}])
    with pytest.raises(InputError, match="30k_test row 0: is_safe: found null, expected one of True, False"):
        list(source.records("test"))


def toxicchat_row(text: str, annotated: bool, toxic: int) -> dict[str, Any]:
    row = {"conv_id": "0a", "user_input": text, "model_output": "Hm.", "human_annotation": annotated, "toxicity": toxic}
    return {**row, "jailbreaking": 0, "openai_moderation": "[['sexual', 0.1]]"}


def test_toxicchat_uses_human_annotated_requests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "set"
    files = {split: f"data/0124/toxic-chat_annotation_{split}.csv" for split in ("train", "test")}
    write_readme(folder, {"toxicchat0124": files, "toxicchat1123": files})
    write_rows(
        folder / files["train"],
        [toxicchat_row('One,\n"1"?', True, 1), toxicchat_row("Two?", False, 1), toxicchat_row("null", True, 0)],
    )
    write_rows(folder / files["test"], [toxicchat_row("Test?", True, 0)])
    source = ToxicChat(str(folder))
    with caplog.at_level(logging.INFO, "guardreasoner"):
        assert list(source.records("train")) == [
            Record("ToxicChatTrain/000000", 'One,\n"1"?', None, {"request": "harmful"}, source="ToxicChatTrain"),
            Record("ToxicChatTrain/000002", "null", None, {"request": "unharmful"}, source="ToxicChatTrain"),
        ]
    assert caplog.messages == ["ToxicChatTrain: 2 of 3 rows used; the others are not human-annotated"]
    assert [record.id for record in source.records("test")] == ["ToxicChatTest/000000"]
    write_rows(folder / files["test"], [toxicchat_row("Test?", True, 2)])
    with pytest.raises(InputError, match="toxicchat0124/test row 0: toxicity: found 2, expected one of 1, 0"):
        list(source.records("test"))
    write_rows(folder / files["test"], [toxicchat_row("Test?", False, 1)])
    with pytest.raises(InputError, match="ToxicChatTest: none of 1 rows can be used; they are not human-annotated"):
        list(source.records("test"))


def trace_row(prompt: str, response: str | None, output: str, opening: str | None = None) -> dict[str, str]:
    text = conversation(Record("", prompt, response))
    return {"instruction": opening or instruction(GUARD_TASKS), "input": text, "output": output}


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    folder = tmp_path / "traces"
    files = {part: f"{part.removesuffix('R')}-R.json" for part in PARTS}
    write_readme(folder, {"default": files})
    block = "Answers: \nRequest: {}\nCompletion: {}\nResponse: {}\n"
    all_three = f"Think.\n\n---\n\n{block.format('harmful', 'refusal', 'unharmful')}"
    only_one = f"Request: harmful, I thought.\n\n{block.format('unharmful', 'None', 'None')}"
    for part, file in files.items():
        prompts = [f"{part} {number}?" for number in range(4)]
        rows = [
            trace_row(prompts[0], "No.", all_three),
            trace_row(prompts[1], None, only_one, "You are a classifier of another kind.\n\nThree tasks.\n"),
            trace_row(prompts[2], None, "I cannot say."),
            trace_row(prompts[3], None, f"{all_three}\nThat is all."),
        ]
        write_rows(folder / file, rows[: 2 if part == "AegisTrainR" else 4])
    return folder


def test_guardreasoner_train_has_reasoning(traces: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = GuardReasonerTrain(str(traces), parts=["ToxicChatTrainR", "AegisTrainR"])
    with caplog.at_level(logging.INFO, "guardreasoner"):
        records = list(source.records("train"))
    assert caplog.messages == [
        "ToxicChatTrainR: 2 of 4 rows used; the others do not end in a parsable answer block",
    ]
    assert [record.id for record in records] == [
        *("ToxicChatTrainR/000000", "ToxicChatTrainR/000001", "AegisTrainR/000000", "AegisTrainR/000001")
    ]
    first, second = records[:2]
    assert (first.prompt, first.response, first.source) == ("ToxicChatTrainR 0?", "No.", "ToxicChatTrainR")
    assert first.labels == {"request": "harmful", "completion": "refusal", "response": "unharmful"}
    assert first.reasoning is not None
    assert first.reasoning.startswith("Think.\n\n---\n\nAnswers: \n")
    assert (second.prompt, second.response) == ("ToxicChatTrainR 1?", None)
    assert second.labels == {"request": "unharmful", "completion": None, "response": None}
    assert list(source.records("test")) == []
    assert list(source.records("validation")) == []
    assert len(list(GuardReasonerTrain(str(traces)).records("train"))) == 8


def test_guardreasoner_train_has_a_validation_split(traces: Path) -> None:
    source = GuardReasonerTrain(str(traces), validation_share=0.5)
    train, validation = ({record.id for record in source.records(split)} for split in ("train", "validation"))
    assert len(train | validation) == len(train) + len(validation) == 8
    assert validation


def test_an_invalid_part_or_layout_is_reported(traces: Path) -> None:
    with pytest.raises(
        InputError, match=r"GuardReasonerTrain: parts must be one or more of WildGuardTrainR, .*'Aegis'"
    ):
        GuardReasonerTrain(parts=["Aegis"])
    write_rows(traces / "AegisTrain-R.json", [{"instruction": "Do.", "input": "Hello", "output": "Hm."}])
    with pytest.raises(InputError, match="AegisTrainR row 0: expected 'Human user: … AI assistant: …' in the released"):
        list(GuardReasonerTrain(str(traces)).records("train"))
