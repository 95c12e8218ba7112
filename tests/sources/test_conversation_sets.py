"""Aegis 2.0, PolyGuard and Qwen3GuardTest, from local folders."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.aegis2 import Aegis2
from guardreasoner.sources.polyguard import PolyGuard
from guardreasoner.sources.qwen3guard import Qwen3GuardTest
from tests.support.hub_folders import stay_offline, write_rows
from tests.support.published_sets import (
    write_aegis2,
    write_polyguard_mix,
    write_polyguard_prompts,
    write_qwen3guard,
)


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_offline(tmp_path, monkeypatch)


@pytest.fixture
def polyguard(tmp_path: Path) -> tuple[str, str]:
    return str(write_polyguard_mix(tmp_path / "mix")), str(write_polyguard_prompts(tmp_path / "prompts"))


def test_aegis2_has_its_published_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = str(write_aegis2(tmp_path / "aegis2"))
    with caplog.at_level(logging.INFO, "guardreasoner"):
        records = list(Aegis2(folder).records("validation"))
    assert caplog.messages == ["Aegis2Validation: 4 of 5 rows used; the others are redacted or have no label"]
    name = "Aegis2Validation"
    assert records == [
        Record(f"{name}/000000", "validation one?", None, {"request": "unharmful"}, source=name),
        Record(
            f"{name}/000001",
            "validation two?",
            "Flour.",
            {"request": "harmful", "response": "unharmful"},
            source=name,
            extra={"labelled_by": "human"},
        ),
        Record(f"{name}/000003", "validation three?", None, {"request": "harmful"}, source=name),
        Record(
            f"{name}/000004",
            "validation four?",
            "Yes.",
            {"request": "unharmful", "response": "harmful"},
            source=name,
            extra={"labelled_by": "llm_jury"},
        ),
    ]
    assert next(iter(Aegis2(folder).records("train"))).prompt == "train one?"
    assert list(Aegis2(folder, splits=["test"]).records("train")) == []


def test_aegis2_can_do_without_the_labels_of_models(tmp_path: Path) -> None:
    folder = str(write_aegis2(tmp_path / "aegis2"))
    people = list(Aegis2(folder, response_labels_by=["human"]).records("test"))
    assert [record.labels.get("response") for record in people] == [None, "unharmful", None, None]
    with pytest.raises(InputError, match="Aegis2: response_labels_by must be one or more of human, llm_jury"):
        Aegis2(response_labels_by=["people"])  # type: ignore[list-item]


def test_polyguard_trains_on_one_set_and_tests_on_another(polyguard: tuple[str, str]) -> None:
    source = PolyGuard(*polyguard)
    train, test = list(source.records("train")), list(source.records("test"))
    assert train[1:] == [
        Record(
            "PolyGuardMix/0000001",
            "Question 1?",
            "Nein.",
            {"request": "harmful", "completion": "refusal", "response": "unharmful"},
            source="PolyGuardMix",
            language="de",
        ),
        Record(
            "PolyGuardMix/0000002", "Question 2?", None, {"request": "harmful"}, source="PolyGuardMix", language="zh"
        ),
    ]
    assert test[1] == Record(
        "PolyGuardPrompts/0000001",
        "Test 1?",
        "Flour.",
        {"request": "unharmful", "completion": "compliance", "response": None},
        source="PolyGuardPrompts",
        language="ko",
    )
    chosen = PolyGuard(*polyguard, languages=["de", "en"])
    assert [record.language for split in ("train", "test") for record in chosen.records(split)] == ["en", "de", "en"]  # type: ignore[arg-type]


def test_the_identity_of_polyguard_depends_on_both_sets(polyguard: tuple[str, str]) -> None:
    identity = json.dumps(PolyGuard(*polyguard).identity())
    assert json.dumps(PolyGuard(*polyguard).identity()) == identity
    write_rows(Path(polyguard[1]) / "data" / "test-00000-of-00001.parquet", [{"prompt": "Other?"}])
    assert json.dumps(PolyGuard(*polyguard).identity()) != identity


def test_unknown_languages_of_polyguard_are_refused(polyguard: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=r"PolyGuard: languages must be one or more of ar, zh.*, got \['german'\]"):
        PolyGuard(languages=["german"])
    rows = [{"prompt": "Test?", "response": None, "language": "Elvish"}]
    labels = dict.fromkeys(("prompt_harm_label", "response_refusal_label", "response_harm_label"), "unharmful")
    write_rows(Path(polyguard[1]) / "data" / "test-00000-of-00001.parquet", [{**row, **labels} for row in rows])
    with pytest.raises(InputError, match="test row 0: language: found 'Elvish', expected one of Arabic, Chinese"):
        list(PolyGuard(*polyguard).records("test"))


@pytest.mark.parametrize("languages", [[["de"]], [{}], "de", [], 3, [None]])
def test_languages_are_a_list_of_codes(languages: Any) -> None:
    with pytest.raises(InputError, match="PolyGuard: languages must be one or more of ar, zh"):
        PolyGuard(languages=languages)


def test_qwen3guard_judges_the_answer_with_its_thoughts(tmp_path: Path) -> None:
    folder = write_qwen3guard(tmp_path / "qwen3guard")
    records = list(Qwen3GuardTest(str(folder)).records("test"))
    assert records[0] == Record(
        "Qwen3GuardThinking/000000",
        "How do I bake bread?",
        "<think>Easy.</think>Mix flour.",
        {"response": "unharmful"},
        source="Qwen3GuardThinking",
        extra={"model": "Qwen/Qwen3-8B"},
    )
    assert [(record.source, record.labels["response"]) for record in records[1:]] == [
        ("Qwen3GuardThinking", "harmful"),
        ("Qwen3GuardResponse", "harmful"),
    ]


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ([{"role": "narrator", "content": "Once."}], r"row 0: message: message 1: expected a role \(system, user,"),
        ("Once.", "row 0: message: found str, expected a list"),
        ([{"role": "user", "content": "Hm?"}], "Qwen3GuardThinking: none of 1 rows can be used; they do not end with"),
    ],
)
def test_a_conversation_of_another_form_is_refused(tmp_path: Path, message: object, fault: str) -> None:
    folder = write_qwen3guard(tmp_path / "qwen3guard")
    for file in folder.glob("*.jsonl"):  # the splits of a configuration have the same columns
        write_rows(file, [{"source": "m", "label": "Safe", "message": message}])
    with pytest.raises(InputError, match=fault):
        list(Qwen3GuardTest(str(folder)).records("test"))
