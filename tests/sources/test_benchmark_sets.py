"""OpenAI Moderation, SimpleSafetyTests, XSTest-Response, PKU-SafeRLHF and HarmBench, from local folders."""

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources import Identified, Source
from guardreasoner.sources.harmbench import PROMPTS, RESPONSES, HarmBench
from guardreasoner.sources.openai_moderation import OpenAIModeration
from guardreasoner.sources.released import Released
from guardreasoner.sources.safe_rlhf import SafeRLHF
from guardreasoner.sources.simple_safety_tests import SimpleSafetyTests
from guardreasoner.sources.xstest import XSTestResponse
from tests.support.hub_folders import stay_offline, write_readme, write_rows


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_offline(tmp_path, monkeypatch)


@pytest.mark.parametrize("source", [OpenAIModeration(), SimpleSafetyTests(), XSTestResponse(), SafeRLHF(), HarmBench()])
def test_a_benchmark_has_only_a_test_split(source: Source) -> None:
    assert list(source.records("train")) == list(source.records("validation")) == []
    assert isinstance(source, Identified)
    assert json.loads(json.dumps(source.identity()))["class"] == type(source).__name__


def test_openai_moderation_is_harmful_if_any_category_is(tmp_path: Path) -> None:
    unharmful = dict.fromkeys(("S", "H", "V", "HR", "SH", "S3", "H2", "V2"), 0)
    rows = [
        {"prompt": " One? ", **unharmful},
        {"prompt": "Two?", **unharmful, "V2": 1},
        {"prompt": "Three?", "S": 1, "H": 0},
        {"prompt": "Four?", **unharmful, "S3": None},
    ]
    write_rows(tmp_path / "set" / "samples-1680.jsonl.gz", rows)
    source = OpenAIModeration(f"{tmp_path}/set")
    name = "OpenAIModeration"
    assert next(iter(source.records("test"))) == Record(
        f"{name}/000000", " One? ", None, {"request": "unharmful"}, source=name
    )
    labels = [record.labels["request"] for record in source.records("test")]
    assert labels == ["unharmful", "harmful", "harmful", "unharmful"]
    write_rows(tmp_path / "set" / "samples-1680.jsonl.gz", [{**rows[0], "HR": 3}])
    with pytest.raises(InputError, match="train row 0: HR: found 3, expected one of 1, 0, null"):
        list(source.records("test"))
    write_rows(tmp_path / "set" / "samples-1680.jsonl.gz", rows[2:3])
    with pytest.raises(InputError, match="train: no column 'V', found prompt, S, H"):
        list(source.records("test"))


def test_simple_safety_tests_are_all_harmful(tmp_path: Path) -> None:
    rows = [
        {"id": number, "prompt": text, "harm_area": "x", "category": "y"} for number, text in enumerate(("N/A", "B?"))
    ]
    write_rows(tmp_path / "set" / "sst_test_cases.csv", rows)
    name, labels = "SimpleSafetyTests", {"request": "harmful"}
    assert list(SimpleSafetyTests(f"{tmp_path}/set").records("test")) == [
        Record(f"{name}/000000", "N/A", None, labels, source=name),
        Record(f"{name}/000001", "B?", None, labels, source=name),
    ]


def test_xstest_is_two_benchmarks(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    files = {part: f"data/{part}-00000-of-00001.parquet" for part in ("response_harmfulness", "response_refusal")}
    write_readme(folder, {"default": files})
    row = {"prompt": "One?", "response": "No.", "prompt_type": "prompt_safe", "prompt_harm_category": "homonyms"}
    labels = {"response_harmfulness": ("harmful", "unharmful"), "response_refusal": ("refusal", "compliance")}
    for part, file in files.items():
        write_rows(folder / file, [{**row, "label": label} for label in labels[part]])
    records = list(XSTestResponse(str(folder)).records("test"))
    harm, refusal = "XSTestResponseHarmful", "XSTestResponseRefusal"
    assert records == [
        Record(f"{harm}/000000", "One?", "No.", {"response": "harmful"}, source=harm),
        Record(f"{harm}/000001", "One?", "No.", {"response": "unharmful"}, source=harm),
        Record(f"{refusal}/000000", "One?", "No.", {"completion": "refusal"}, source=refusal),
        Record(f"{refusal}/000001", "One?", "No.", {"completion": "compliance"}, source=refusal),
    ]
    assert list(XSTestResponse(str(folder), parts=["response_refusal"]).records("test")) == records[2:]
    write_rows(folder / files["response_harmfulness"], [{**row, "label": "refusal"}])
    with pytest.raises(InputError) as raised:
        list(XSTestResponse(str(folder)).records("test"))
    expected = "label: found 'refusal', expected one of 'harmful', 'unharmful'"
    assert str(raised.value) == f"{folder} response_harmfulness row 0: {expected}"


def saferlhf_row(number: int, *safe: bool) -> dict[str, Any]:
    texts = {f"response_{index}": f"{number} {'safe' if good else 'unsafe'} {index}" for index, good in enumerate(safe)}
    verdicts = {f"is_response_{index}_safe": good for index, good in enumerate(safe)}
    return {"prompt": f"{number}?", **texts, **verdicts, "better_response_id": 0, "safer_response_id": 0}


def test_saferlhf_samples_like_the_published_evaluation(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    verdicts = [(True, False), (True, True), (False, True), (False, False)]
    rows = [saferlhf_row(number, *verdicts[number % 4]) for number in range(80)]
    write_rows(folder / "round0" / "train.jsonl.xz", rows[:1])
    write_rows(folder / "round0" / "test.jsonl.xz", rows)
    mixed = list(range(0, 80, 2))
    random.seed(42)
    drawn = [mixed[index] for index in random.sample(range(len(mixed)), 10)]
    records = list(SafeRLHF(str(folder), questions=10).records("test"))
    assert [record.prompt for record in records] == [f"{number}?" for number in drawn * 2]
    assert [record.labels for record in records] == [{"response": "unharmful"}] * 10 + [{"response": "harmful"}] * 10
    for record, number in zip(records, drawn * 2, strict=True):
        kind = "safe" if record.labels["response"] == "unharmful" else "unsafe"
        assert record.response is not None
        *_, index = record.response.split()
        assert record.response == f"{number} {kind} {index}"
        assert record.id == f"SafeRLHF/{number:06d}-{index}"
        assert record.source == "SafeRLHF"
    all_records = list(SafeRLHF(str(folder), questions=None).records("test"))
    assert [record.prompt for record in all_records] == [f"{number}?" for number in mixed * 2]
    with pytest.raises(InputError, match="test: 40 rows have one safe and one unsafe response, expected 1,000"):
        list(SafeRLHF(str(folder)).records("test"))
    with pytest.raises(InputError, match="SafeRLHF: questions must be a whole number of at least 1, got 0"):
        SafeRLHF(questions=0)


def test_the_released_saferlhf_has_the_same_layout(shared_data: Path) -> None:
    records = Released(shared_data, test=["SafeRLHF"], train=()).records("test")
    safe, unsafe = records[:1000], records[1000:]
    assert [record.prompt for record in safe] == [record.prompt for record in unsafe]
    assert {record.labels["response"] for record in safe} == {"unharmful"}
    assert {record.labels["response"] for record in unsafe} == {"harmful"}


def harmbench(folder: Path, answers: object, *categories: str) -> HarmBench:
    rows = [
        {"Behavior": f"Do {index}", "FunctionalCategory": category, "ContextString": "", "BehaviorID": f"do_{index}"}
        for index, category in enumerate(categories or ("standard",))
    ]
    write_rows(folder / PROMPTS, rows)
    (folder / RESPONSES).parent.mkdir(parents=True, exist_ok=True)
    (folder / RESPONSES).write_text(json.dumps(answers))
    return HarmBench(str(folder))


def answer(*votes: int, **others: object) -> dict[str, object]:
    annotators = {f"human_{index}": vote for index, vote in enumerate(votes)}
    return {"test_case": "Do it", "generation": "Done.", **annotators, "experiment": "default", **others}


def test_harmbench_has_requests_and_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    votes = {"do_0": [answer(0, 0, 1), answer(1, 0, 1, generation="")], "do_1": [answer(1, 1, 1), answer(0, 0, 0)]}
    source = harmbench(tmp_path / "clone", votes, "standard", "contextual", "copyright")
    with caplog.at_level(logging.INFO, "guardreasoner"):
        records = list(source.records("test"))
    assert caplog.messages == ["HarmBenchPrompt: 2 of 3 rows used; the others need a context"]
    prompts, responses = "HarmBenchPrompt", "HarmBenchResponse"
    assert records[:4] == [
        Record(f"{prompts}/do_0", "Do 0", None, {"request": "harmful"}, source=prompts),
        Record(f"{prompts}/do_2", "Do 2", None, {"request": "harmful"}, source=prompts),
        Record(
            f"{responses}/000000",
            "Do it",
            "Done.",
            {"response": "unharmful"},
            source=responses,
            extra={"agreement": "0.67"},
        ),
        Record(
            f"{responses}/000001", "Do it", "", {"response": "harmful"}, source=responses, extra={"agreement": "0.67"}
        ),
    ]
    unanimous = HarmBench(str(tmp_path / "clone"), parts=["response"], min_agreement=1)
    assert [record.id[-1] for record in unanimous.records("test")] == ["2", "3"]
    assert [record.labels["response"] for record in records[4:]] == ["harmful", "unharmful"]
    only = HarmBench(str(tmp_path / "clone"), parts=["response"])
    assert list(only.records("test")) == records[2:]
    assert only.identity() != source.identity()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected an object with a list of answers for each behaviour"),
        ({"do_0": {}}, "expected an object with a list of answers for each behaviour"),
        ({"do_0": ["x"]}, "do_0 0: found str, expected an object"),
        ({"do_0": [answer(1, 1)]}, "do_0 0: no 'human_2', found test_case, generation, human_0, human_1, experiment"),
        ({"do_0": [answer(1, 1, 2)]}, "do_0 0: human_2: found 2, expected one of 1, 0"),
        ({"do_0": [answer(1, 1, 1, test_case=None)]}, "do_0 0: test_case: found null, expected text"),
        ({"do_0": []}, "the file has no answers"),
    ],
)
def test_invalid_harmbench_answers_are_refused(tmp_path: Path, content: object, message: str) -> None:
    source = harmbench(tmp_path / "clone", content)
    with pytest.raises(InputError) as raised:
        list(source.records("test"))
    assert str(raised.value) == f"{tmp_path}/clone/{RESPONSES}: {message}"


def test_invalid_harmbench_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 0: FunctionalCategory: found 'odd', expected one of 'standard', 'copyr"):
        list(harmbench(tmp_path / "clone", {}, "odd").records("test"))
    with pytest.raises(InputError, match="HarmBenchPrompt: none of 1 rows can be used; they need a context"):
        list(harmbench(tmp_path / "other", {}, "contextual").records("test"))
    with pytest.raises(InputError, match="HarmBench: parts must be one or more of prompt, response, each once"):
        HarmBench(parts=["prompts"])  # type: ignore[list-item]
    with pytest.raises(InputError) as raised:
        list(HarmBench().records("test"))
    assert raised.value.hint == "clone https://github.com/centerforaisafety/HarmBench, and give its folder as path"
