"""Ordered labels: scores, comparisons and pages show both readings beside the exact labels."""

import json
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.errors import InputError
from guardreasoner.tasks import Task
from tests.support.labelled_predictions import SEVERITY, labelled_predictions

S, C, U = SEVERITY.labels
FIRST = [(S, S), (S, C), (S, U), (C, C), (C, S), (C, U), (U, U), (U, C), (U, ""), (S, "")]
SECOND = [(gold, gold) for gold, _ in FIRST]


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    pairs = (("first", FIRST), ("second", SECOND))
    return [str(labelled_predictions(tmp_path / name, SEVERITY, answers)) for name, answers in pairs]


def test_score_shows_both_readings_beside_the_exact_labels(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    assert main(["score", folders[0], "--resamples", "200", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    rows = {line.split("  ")[1].strip(): line for line in shown.splitlines() if line.startswith("held-out")}
    assert list(rows) == ["response", "response (strict)", "response (loose)"]
    assert "(strict) counts every label but the first as positive" in shown
    row = json.loads(out.read_text())["models"]["first"]["benchmarks"]["held-out"]["response"]
    assert (row["n"], row["accuracy"], row["unparsed"]) == (10, 30, 2)
    assert set(row["f1_per_class"]) == {S, C, U}
    strict, loose = row["readings"]["strict"], row["readings"]["loose"]
    # strict: of 6 positive records 4 are found; of 4 negative ones 2 are called positive and 1 is unparsed
    assert (strict["recall"], strict["false_positive_rate"]) == (pytest.approx(400 / 6), 75)
    assert strict["f1"] == pytest.approx(100 * 8 / (8 + 3 + 2))
    # loose: of 3 positive records 1 is found; of 7 negative ones 2 are called positive and 1 is unparsed
    assert (loose["recall"], loose["false_positive_rate"]) == (pytest.approx(100 / 3), pytest.approx(300 / 7))
    assert loose["accuracy"] == 50
    assert strict["f1_interval"][0] < strict["f1"] < strict["f1_interval"][1]
    assert strict["unparsed"] == 2


def test_several_models_have_a_column_and_a_row_for_each_reading(
    folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", *folders, "--mode", "strict", "drop", "--resamples", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-3:] == ["(strict)", "(loose)", "unparsed"]
    assert [line.split()[1:3] for line in lines if line.startswith("held-out")][1:] == [
        ["response", "(strict)"],
        ["response", "(loose)"],
    ]


def test_compare_has_paired_differences_of_both_readings(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "comparison.json"
    assert main(["compare", *folders, "--resamples", "200", "--json", str(out)]) == 0
    assert "response (loose)" in capsys.readouterr().out
    (row,) = json.loads(out.read_text())["pairs"][0]["benchmarks"]
    assert (row["accuracy"], row["gained"]) == (70, 7)
    strict, loose = row["readings"]["strict"], row["readings"]["loose"]
    assert (strict["accuracy"], strict["gained"], strict["lost"]) == (50, 5, 0)
    assert (loose["accuracy"], loose["gained"]) == (50, 5)
    assert strict["accuracy_interval"][0] < 50 < strict["accuracy_interval"][1]


def test_the_report_shows_both_readings(folders: list[str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["report", *folders, "--resamples", "50", "--out", str(page)]) == 0
    assert page.read_text().count("response (strict)") >= 2


def test_two_ordered_labels_need_no_readings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = Task("harm", "Harm", "judge.", ("no harm", "harm"), ordered=True)
    assert task.positive == "harm"
    folder = labelled_predictions(tmp_path / "m", task, [("harm", "harm"), ("no harm", "harm")])
    assert main(["score", str(folder), "--resamples", "0"]) == 0
    assert "(strict)" not in capsys.readouterr().out.replace("one wrong answer (strict)", "")


def test_a_label_outside_the_order_is_refused_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = labelled_predictions(tmp_path / "m", SEVERITY, [(S, S), ("harmful", S)])
    assert main(["score", str(folder)]) == 2
    fault = capsys.readouterr().err
    assert "generated_predictions.jsonl:2: " in fault
    assert "'harmful' is none of safe, controversial, unsafe" in fault


def test_the_positive_label_of_ordered_labels_is_the_last() -> None:
    with pytest.raises(InputError, match="safe"):
        Task("a", "A", "q", ("safe", "unsafe"), "safe", ordered=True)
