"""Label audit: which labels are doubted, their order, and the file."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.mining.audit import doubted_labels
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.disk_list import DiskList
from tests.support.output_files import predictions, rollouts

WORDS = {"H": "harmful", "U": "unharmful"}


def outputs(record_id: str, model: str, letters: str) -> list[Rollout]:
    texts = [
        f"Because {index}.\n{answer_block({'request': WORDS[letter]}, GUARD_TASKS)}" if letter in WORDS else "…"
        for index, letter in enumerate(letters)
    ]
    return [Rollout(record_id, model, f"f-{model}", index, 0, text) for index, text in enumerate(texts)]


def audit(gold: str, **letters: str) -> list[tuple[str, int, int, tuple[str, ...]]]:
    """Audit records with these gold labels; each model answers each record with the letters of one word."""
    records = [Record(str(n), f"p{n}", labels={"request": WORDS[letter]}) for n, letter in enumerate(gold)]
    words = [(model, n, word) for model, text in letters.items() for n, word in enumerate(text.split())]
    found = doubted_labels(
        records, [one for model, n, word in words for one in outputs(str(n), model, word)], GUARD_TASKS
    )
    return [(one.record.id, one.outputs, one.unparsed, one.models) for one in found]


def test_a_label_is_doubted_if_all_verdicts_are_the_same_and_another() -> None:
    assert audit("HHHH", a="UU UH HH U-", b="UU UU HH U-") == [("0", 4, 0, ("a", "b")), ("3", 2, 2, ("a", "b"))]


def test_one_verdict_doubts_nothing() -> None:
    assert audit("HH", a="U -") == []


def test_most_outputs_then_most_models_then_agreement_come_first() -> None:
    found = audit("HHHH", a="UUU- UU UUU UUUU", b="- U - -")
    assert [(record_id, count, len(models)) for record_id, count, _, models in found] == [
        ("3", 4, 1),
        ("1", 3, 2),
        ("2", 3, 1),
        ("0", 3, 1),
    ]


def test_one_or_two_outputs_are_shown_of_different_models() -> None:
    record = Record("0", "p", labels={"request": "harmful"})
    given = [*outputs("0", "a", "UU"), *outputs("0", "b", "UU")]
    (of_two,) = doubted_labels([record], given, GUARD_TASKS)
    (of_one,) = doubted_labels([record], given[:2], GUARD_TASKS)
    assert [(one.model, one.index) for one in of_two.shown] == [("a", 0), ("b", 0)]
    assert [(one.model, one.index) for one in of_one.shown] == [("a", 0), ("a", 1)]


@pytest.fixture
def audit_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folders = [rollouts(tmp_path / "1", "UU HU UU U-", "a"), rollouts(tmp_path / "2", "UU UU UH UU", "b")]
    path = tmp_path / "audit.jsonl"
    assert main(["pairs", "--rollouts", *folders, "--audit", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "2 of 4 gold labels, on 2 of 4 records" in shown
    return path


def test_pairs_writes_the_list(audit_file: Path) -> None:
    rows = [json.loads(line) for line in audit_file.read_text().splitlines()]
    assert [(row["record_id"], row["outputs"], row["unparsed"], row["agreement"]) for row in rows] == [
        ("0", 4, 0, 1.0),
        ("3", 3, 1, 0.75),
    ]
    assert {(row["task"], row["label"], row["verdict"]) for row in rows} == {("request", "harmful", "unharmful")}
    assert rows[0]["record"]["prompt"] == "p"
    assert [one["model"] for one in rows[0]["reasonings"]] == ["a", "b"]
    assert "unharmful" in rows[0]["reasonings"][0]["completion"]


def test_the_list_and_pairs_can_be_written_together_and_again(
    audit_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(tmp_path / "1"), str(tmp_path / "2")]
    arguments = ["pairs", "--rollouts", *folders, "--audit", str(audit_file), "--out", str(tmp_path / "pairs.jsonl")]
    assert main(arguments) == 0
    assert len((tmp_path / "pairs.jsonl").read_text().splitlines()) == 2


def test_predictions_of_several_models_can_be_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(predictions(tmp_path / name, "HU HH UU")) for name in "abc"]
    path = tmp_path / "audit.jsonl"
    assert main(["pairs", "--rollouts", *folders, "--audit", str(path)]) == 0
    (row,) = map(json.loads, path.read_text().splitlines())
    assert (row["record_id"], row["models"]) == ("0", ["a", "b", "c"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--audit", "a.jsonl", "--explain", "0"], "--explain cannot be combined"),
        (["--audit", "a.jsonl", "--details"], "required: --out"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pairs", "--rollouts", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_another_file_is_not_replaced(audit_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "notes.jsonl"
    other.write_text("mine\n")
    assert main(["pairs", "--rollouts", str(tmp_path / "1"), "--audit", str(other)]) == 2
    assert other.read_text() == "mine\n"


def test_the_first_two_different_outputs_of_one_model_are_shown() -> None:
    a, b, c, last = outputs("0", "a", "UUUU")
    given = [a, b, c, replace(last, completion=a.completion)]
    (found,) = doubted_labels([Record("0", "p", labels={"request": "harmful"})], given, GUARD_TASKS)
    assert [output.index for output in found.shown] == [0, 1]


def test_the_texts_stay_on_the_disk() -> None:
    def peak(count: int) -> int:
        records = DiskList(Record(str(number), "p", labels={"request": "harmful"}) for number in range(count))
        texts = DiskList(
            replace(output, completion="x" * 20_000 + output.completion)
            for number in range(count)
            for output in outputs(str(number), "a", "HH")
        )
        tracemalloc.start()
        assert doubted_labels(records, texts, GUARD_TASKS) == []
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(5)
    assert (peak(100) - peak(20)) / 80 < 4_000
