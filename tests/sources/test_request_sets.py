"""AdvBench, StrongREJECT, Do-Not-Answer, and JailbreakBench's requests and artifacts, from local folders."""

import inspect
import json
import logging
import re
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.advbench import BEHAVIORS, AdvBench
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.contamination import ContaminationIndex
from guardreasoner.sources.do_not_answer import DoNotAnswer
from guardreasoner.sources.harmbench import HarmBench
from guardreasoner.sources.jailbreak_artifacts import FILES, JailbreakArtifacts
from guardreasoner.sources.jailbreakbench import JailbreakBench
from guardreasoner.sources.lookalikes import is_lookalike
from guardreasoner.sources.strongreject import REQUESTS, StrongREJECT
from guardreasoner.sources.xstest_completions import XSTestCompletions
from tests.support.hub_folders import stay_offline, write_rows
from tests.support.published_sets import (
    write_advbench,
    write_do_not_answer,
    write_jailbreak_artifacts,
    write_jailbreakbench,
    write_strongreject,
)


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_offline(tmp_path, monkeypatch)


def test_every_request_of_a_one_sided_set_is_harmful(tmp_path: Path) -> None:
    assert list(AdvBench(str(write_advbench(tmp_path / "advbench"))).records("test")) == [
        Record(f"AdvBench/00000{number}", prompt, None, {"request": "harmful"}, source="AdvBench")
        for number, prompt in enumerate(("Write a tutorial on how to bake bread", 'Say "None",\nthen stop'))
    ]
    assert list(StrongREJECT(str(write_strongreject(tmp_path / "strongreject"))).records("test"))[1] == Record(
        "StrongREJECT/000001",
        "Write a tutorial on how to bake bread",
        None,
        {"request": "harmful"},
        source="StrongREJECT",
        extra={"category": "Baking", "origin": "AdvBench"},
    )
    assert next(iter(DoNotAnswer(str(write_do_not_answer(tmp_path / "dna"))).records("test"))) == Record(
        "DoNotAnswer/000000",
        "How do I bake bread?",
        None,
        {"request": "harmful"},
        source="DoNotAnswer",
        extra={"category": "Information Hazards"},
    )


def test_a_request_may_be_a_number(tmp_path: Path) -> None:
    write_rows(tmp_path / REQUESTS, [{"category": "1", "source": "2", "forbidden_prompt": "12"}])
    record = next(iter(StrongREJECT(str(tmp_path)).records("test")))
    assert (record.prompt, record.extra) == ("12", {"category": "1", "origin": "2"})


def test_two_columns_of_requests_are_refused(tmp_path: Path) -> None:
    file = tmp_path / REQUESTS
    file.parent.mkdir(parents=True)
    file.write_text("category,source,forbidden_prompt,forbidden_prompt\nBaking,custom,One?,Two?\n")
    with pytest.raises(InputError, match=r"strongreject_dataset\.csv:1: the column 'forbidden_prompt' occurs twice"):
        list(StrongREJECT(str(tmp_path)).records("test"))


def test_the_benign_requests_of_jailbreakbench_are_lookalikes(tmp_path: Path) -> None:
    source = JailbreakBench(str(write_jailbreakbench(tmp_path / "jbb")), parts=["harmful", "benign"])
    records = list(source.records("test"))
    assert records[0] == Record(
        "JailbreakBenchHarmful/000000",
        "A harmful goal",
        None,
        {"request": "harmful"},
        source="JailbreakBenchHarmful",
        extra={"category": "Baking", "origin": "Original"},
    )
    assert [(record.source, record.labels["request"], is_lookalike(record)) for record in records[1:3]] == [
        ("JailbreakBenchHarmful", "harmful", False),
        ("JailbreakBenchBenign", "unharmful", True),
    ]
    assert records[3].extra["origin"] == "TDC/HarmBench"


def test_an_attack_is_a_harmful_request_whether_it_succeeded_or_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_jailbreak_artifacts(tmp_path / "artifacts")
    with caplog.at_level(logging.INFO, "guardreasoner"):
        records = list(JailbreakArtifacts(str(folder), attacks=["GCG"]).records("test"))
    assert caplog.messages == ["JailbreakGCG: 8 of 12 rows used; the others have no prompt"]
    facts = {"category": "Baking/Cooking", "attack": "GCG", "model": "llama-2-7b-chat-hf"}
    assert records[:2] == [
        Record(
            "JailbreakGCG/000000",
            "GCG white_box/llama-2-7b-chat-hf: bake",
            None,
            {"request": "harmful"},
            source="JailbreakGCG",
            extra={**facts, "jailbroken": "yes"},
        ),
        Record(
            "JailbreakGCG/000002",
            "You are a baker.\nBake",
            None,
            {"request": "harmful"},
            source="JailbreakGCG",
            extra={**facts, "jailbroken": "no"},
        ),
    ]
    everything = list(JailbreakArtifacts(str(folder)).records("test"))
    assert len({record.id for record in everything}) == len(everything) == 2 * sum(map(len, FILES.values()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected an object with a list of objects, 'jailbreaks'"),
        ({"jailbreaks": [3]}, "expected an object with a list of objects, 'jailbreaks'"),
        (
            {"jailbreaks": [{"prompt": "Bake", "topic": "x"}]},
            "jailbreak 0: no 'category', found prompt, topic; expected prompt, category, jailbroken",
        ),
        (
            {"jailbreaks": [{"prompt": "Bake", "category": "x", "jailbroken": "yes"}]},
            "jailbreak 0: jailbroken: found 'yes', expected one of True, False",
        ),
    ],
)
def test_artifacts_of_another_form_are_refused(tmp_path: Path, content: object, message: str) -> None:
    folder = write_jailbreak_artifacts(tmp_path / "artifacts")
    file = folder / "attack-artifacts" / "DSN" / f"{FILES['DSN'][0]}.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as raised:
        list(JailbreakArtifacts(str(folder), attacks=["DSN"]).records("test"))
    assert str(raised.value) == f"{file}: {message}"


def test_changed_columns_are_named_with_those_expected(tmp_path: Path) -> None:
    write_rows(tmp_path / REQUESTS, [{"category": "Baking", "prompt": "How do I bake bread?"}])
    with pytest.raises(InputError) as raised:
        list(StrongREJECT(str(tmp_path)).records("test"))
    assert str(raised.value) == (
        f"{tmp_path}/{REQUESTS}: no column 'source', found category, prompt; "
        "expected category, source, forbidden_prompt"
    )


def test_an_empty_request_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / BEHAVIORS, [{"goal": "Bake", "target": "x"}, {"goal": " ", "target": "x"}])
    with pytest.raises(InputError, match="row 1: goal: found an empty text, expected text"):
        list(AdvBench(str(tmp_path)).records("test"))


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        (AdvBench(), "clone https://github.com/llm-attacks/llm-attacks, and give its folder as path"),
        (StrongREJECT(), "clone https://github.com/alexandrasouly/strongreject, and give its folder as path"),
        (JailbreakArtifacts(), "clone https://github.com/JailbreakBench/artifacts, and give its folder as path"),
        (
            JailbreakBench(),
            "log in (hf auth login) and accept the terms at "
            "https://huggingface.co/datasets/JailbreakBench/JBB-Behaviors, or give a folder with its files as path",
        ),
    ],
)
def test_what_cannot_be_downloaded_is_named_with_its_address(source: AdvBench, hint: str) -> None:
    with pytest.raises(InputError) as raised:
        list(source.records("test"))
    assert raised.value.hint == hint


def test_overlaps_between_the_sets_are_found(tmp_path: Path) -> None:
    benchmark = AdvBench(str(write_advbench(tmp_path / "advbench"))).records("test")
    training = StrongREJECT(str(write_strongreject(tmp_path / "strongreject"))).records("test")
    with pytest.raises(InputError, match="1 record with a prompt that also occurs in a benchmark of this run: Strong"):
        list(ContaminationIndex(list(benchmark)).filter(training, "training data"))


@pytest.mark.parametrize("source", [AdvBench, HarmBench, JailbreakArtifacts, StrongREJECT, XSTestCompletions])
def test_files_on_github_are_read_at_a_commit(source: type[Benchmark]) -> None:
    path = inspect.signature(source).parameters["path"].default
    assert re.fullmatch(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}", path)
