import json
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.prompts import conversation, instruction
from guardreasoner.records import Record
from guardreasoner.sources.contamination import ContaminationIndex, normalize
from guardreasoner.sources.predictions import read_predictions
from guardreasoner.sources.released import BENCHMARKS, PUBLISHED, Released
from guardreasoner.tasks import GUARD_TASKS


def write(folder: Path, benchmark: str, *samples: tuple[str, str | None, str]) -> None:
    rows = [
        {"instruction": instruction(GUARD_TASKS), "input": conversation(Record("", prompt, response)), "output": label}
        for prompt, response, label in samples
    ]
    path = folder / "benchmarks" / f"{BENCHMARKS[benchmark]}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "AegisSafetyTest", ("One?", None, "harmful"), ("Two?", None, "unharmful"))
    numbered = [(f"{number}?", None, "harmful") for number in range(200)]
    write(tmp_path, "HarmBenchPrompt", *numbered, ("one? ", None, "harmful"))
    write(tmp_path, "HarmBenchResponse", *((f"{number} ?"[:-2] + "?", "Yes.", "harmful") for number in range(200)))
    return tmp_path


def make_source(folder: Path, share: float = 0.25) -> Released:
    return Released(folder, train=("HarmBenchPrompt", "HarmBenchResponse"), validation_share=share)


def test_ids_are_benchmark_and_index(folder: Path) -> None:
    assert make_source(folder).records("test") == [
        Record("AegisSafetyTest/00000", "One?", None, {"request": "harmful"}, source="AegisSafetyTest"),
        Record("AegisSafetyTest/00001", "Two?", None, {"request": "unharmful"}, source="AegisSafetyTest"),
    ]


def test_records_with_test_prompts_are_excluded(folder: Path) -> None:
    released = make_source(folder)
    assert released.excluded_ids == ["HarmBenchPrompt/00200"]
    records = released.records("train") + released.records("validation")
    assert len(records) == 400
    index = ContaminationIndex(released.records("test"))
    assert not [record for record in records if index.match(record)]


def test_a_prompt_is_in_only_one_split(folder: Path) -> None:
    released = make_source(folder)
    train, validation = ({normalize(r.prompt) for r in released.records(split)} for split in ("train", "validation"))
    assert not train & validation
    assert len(train) + len(validation) == 200
    assert 30 < len(validation) < 70
    assert make_source(folder).records("validation") == released.records("validation")
    assert make_source(folder, 0).records("validation") == []


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"test": ["Aegis"]}, "'Aegis' is none of SimpleSafetyTests"),
        ({"train": ["AegisSafetyTest"]}, "AegisSafetyTest is named twice"),
        ({"validation_share": 1.0}, r"validation_share must be in \[0, 1\), got 1.0"),
        ({"validation_share": float("nan")}, r"validation_share must be in"),
        ({"validation_share": "0.1"}, r"validation_share must be in \[0, 1\), got '0.1'"),
        ({"test": [["AegisSafetyTest"]]}, r"\['AegisSafetyTest'\] is none of SimpleSafetyTests"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict, what: str) -> None:
    with pytest.raises(InputError, match=what):
        Released("anywhere", **arguments)


@pytest.mark.parametrize("key", ["test_sample", "train_sample"])
@pytest.mark.parametrize("value", [-1, 0, True, "3", 1.5])
def test_a_sample_is_a_number_of_records(key: str, value: object) -> None:
    with pytest.raises(InputError) as raised:
        Released("anywhere", **{key: value})  # type: ignore[arg-type]
    assert str(raised.value) == f"released data: {key} must be a whole number of at least 1, got {value!r}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "no such file"),
        ("[", ":1: not valid JSON"),
        ("{}", "expected a JSON list of samples"),
        ("[]", "expected a JSON list of samples"),
        ('[{"input": "x"}]', "sample 0: missing field 'instruction'; missing field 'output'"),
        ('[{"instruction": "x", "input": "x", "output": "harmful"}]', "sample 0: expected 'Human user"),
    ],
)
def test_an_invalid_file_is_reported(tmp_path: Path, text: str | None, what: str) -> None:
    if text is not None:
        (tmp_path / "benchmarks").mkdir()
        (tmp_path / "benchmarks" / "0_1_AegisSafetyTest.json").write_text(text)
    with pytest.raises(InputError, match=what):
        Released(tmp_path).records("test")


def test_the_default_splits(shared_data: Path) -> None:
    released = Released(shared_data)
    train, validation, test = (released.records(split) for split in ("train", "validation", "test"))
    assert (len(train) + len(validation), len(test), released.excluded_ids) == (1836, 359, [])
    assert 120 < len(validation) < 250
    index = ContaminationIndex(validation, similarity=1)
    assert not [record for record in train if index.match(record)]
    assert {record.source for record in train} == set(PUBLISHED) - {"AegisSafetyTest"}
    assert sum(record.labels == {"request": "harmful"} for record in test) == 232


def test_published_predictions_have_the_same_records(shared_data: Path) -> None:
    released = Released(shared_data, test=PUBLISHED, train=())
    records = {record.id: record for record in released.records("test")}
    for model in ("1B", "3B"):
        read = read_predictions(shared_data / "predictions" / model)
        assert {record.id: record for record in read.records} == records


def test_every_benchmark_can_be_read(shared_data: Path) -> None:
    released = Released(shared_data, test=tuple(BENCHMARKS), train=())
    assert len(released.records("test")) == 5875
    excluded = Released(shared_data, test=["XSTestReponseHarmful"], train=["XSTestResponseRefusal"]).excluded_ids
    assert len(excluded) > 400


def test_a_sample_is_fixed_and_leaves_the_training_records_as_they_are(folder: Path) -> None:
    whole = Released(folder, test=["HarmBenchPrompt"], train=["AegisSafetyTest"])
    ids = {}
    for count in (20, 40, 10_000):
        sampled = Released(folder, test=["HarmBenchPrompt"], train=["AegisSafetyTest"], test_sample=count)
        assert [record.id for record in sampled.records("train")] == [record.id for record in whole.records("train")]
        assert sampled.excluded_ids == whole.excluded_ids == ["AegisSafetyTest/00000"]  # its prompt is a test prompt
        ids[count] = [record.id for record in sampled.records("test")]
        assert sampled.identity() != whole.identity()
    assert (len(ids[20]), len(ids[40]), len(ids[10_000])) == (20, 40, 201)
    assert set(ids[20]) < set(ids[40])
    assert ids[20] == sorted(ids[20])  # in the order of the file
    assert ids[20] != ids[10_000][:20]


def test_a_sample_of_the_training_records_is_of_all_benchmarks(folder: Path) -> None:
    names = ("HarmBenchPrompt", "HarmBenchResponse")
    whole = Released(folder, train=names).records("train")
    sample = Released(folder, train=names, train_sample=30)
    assert len(sample.records("train")) == 30
    assert [record for record in whole if record in sample.records("train")] == sample.records("train")
    assert {record.source for record in sample.records("train")} == set(names)
    assert sample.records("validation") == Released(folder, train=names).records("validation")
