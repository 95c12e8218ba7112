import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.aegis import Aegis
from guardreasoner.sources.released import Released
from tests.support.hub_folders import stay_offline, write_rows

NAMES = {split: f"Annotations 02.08.24_{split}_release.parquet" for split in ("train", "test")}


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_offline(tmp_path, monkeypatch)


def row(*votes: str, text: str = " Hm? ", kind: str = "user_message") -> dict[str, Any]:
    labels = {f"labels_{index}": votes[index] if index < len(votes) else None for index in range(5)}
    return {"num_annotations": len(votes), "id": 7, "text": text, **labels, "text_type": kind}


def write(folder: Path, *rows: dict[str, Any], split: str = "test") -> str:
    # There is no data card that names the files: the splits follow from the file names.
    full = row("Safe", "Safe", "Safe", "Safe", "Safe")
    write_rows(folder / NAMES["train"], [full])
    write_rows(folder / NAMES["test"], [full])
    write_rows(folder / NAMES[split], [*rows, full])
    return str(folder)


@pytest.mark.parametrize(
    ("votes", "strict", "lenient"),
    [
        (("Safe", "Safe", "Violence"), "unharmful", "unharmful"),
        (("Safe", "Violence", "Threat, Violence"), "harmful", "harmful"),
        (("Safe", "Needs Caution", "Needs Caution"), "harmful", "unharmful"),
        (("Safe", "Needs Caution", "Needs Caution, Threat"), "harmful", "unharmful"),
        (("Safe", "Needs Caution, Threat", "Other"), "harmful", "harmful"),
        (("Safe", "Violence"), "harmful", "harmful"),  # a tie
        (
            ("Safe", "Safe", "Violence", "Needs Caution"),
            "harmful",
            "unharmful",
        ),  # a tie unless the last vote is unharmful
        (("Safe", "Safe", "Safe", "Violence", "Threat"), "unharmful", "unharmful"),
        ((" safe", "SAFE", "Violence"), "unharmful", "unharmful"),
        (("Safe",), "unharmful", "unharmful"),
        (("Profanity",), "harmful", "harmful"),
    ],
)
def test_the_majority_vote_decides(tmp_path: Path, votes: tuple[str, ...], strict: str, lenient: str) -> None:
    path = write(tmp_path / "set", row(*votes))
    record = next(iter(Aegis(path).records("test")))
    expected = Record("AegisSafetyTest/000000", "Hm?", None, {"request": strict}, source="AegisSafetyTest")
    assert replace(record, extra={}) == expected
    assert next(iter(Aegis(path, needs_caution="unharmful").records("test"))).labels == {"request": lenient}


def test_only_user_messages_with_votes_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    others = [row("Safe", kind=kind) for kind in ("llm_response", "multi_turn")]
    path = write(tmp_path / "set", *others, row("Violence", text="One?"), row(text="No vote?"), split="train")
    with caplog.at_level(logging.INFO, "guardreasoner"):
        ids_and_labels = [(record.id, record.labels["request"]) for record in Aegis(path).records("train")]
    assert ids_and_labels == [("AegisTrain/000002", "harmful"), ("AegisTrain/000004", "unharmful")]
    assert caplog.messages == ["AegisTrain: 2 of 5 rows used; the others are not user messages with a label"]
    assert list(Aegis(path).records("validation")) == []
    assert len(list(Aegis(path, validation_share=0.99).records("validation"))) == 2


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Aegis: needs_caution must be harmful or unharmful, got 'maybe'"):
        Aegis(needs_caution="maybe")  # type: ignore[arg-type]
    path = write(tmp_path / "set", {**row("Safe"), "text": None})
    with pytest.raises(InputError, match="test row 0: text: found null, expected text"):
        list(Aegis(path).records("test"))
    wrong = {key: value for key, value in row("Safe", "Safe", "Safe", "Safe", "Safe").items() if key != "labels_4"}
    for file in NAMES.values():
        write_rows(tmp_path / "set" / file, [wrong])
    with pytest.raises(InputError, match="test: no column 'labels_4', found num_annotations, id, text, labels_0"):
        list(Aegis(path).records("test"))


def test_the_released_benchmark_has_stripped_texts(shared_data: Path) -> None:
    records = Released(shared_data, test=["AegisSafetyTest"], train=()).records("test")
    assert len(records) == 359
    assert all(record.prompt == record.prompt.strip() and record.response is None for record in records)


def test_disagreement_is_a_column_and_a_threshold(tmp_path: Path) -> None:
    path = write(tmp_path / "set", row("Safe", "Safe", "Violence"), row("Safe", "Violence"), row("Threat"))
    agreements = [record.extra["agreement"] for record in Aegis(path).records("test")]
    assert agreements == ["0.67", "0.50", "1.00", "1.00"]
    assert [record.id[-1] for record in Aegis(path, min_agreement=0.67).records("test")] == ["0", "2", "3"]
    assert [record.id[-1] for record in Aegis(path, min_agreement=1).records("test")] == ["2", "3"]
    with pytest.raises(InputError, match="Aegis: min_agreement must be from 0 to 1, got 2"):
        Aegis(min_agreement=2)
