import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.cli.main import main
from guardreasoner.prompts import answer_block, render
from guardreasoner.records import Record, write_jsonl
from guardreasoner.sources.embedded.policies import EmbeddedPolicies
from guardreasoner.tasks import POLICY_TASKS, write_tasks
from tests.support.output_files import predictions
from tests.support.scored_predictions import random_scores, scored_predictions


def test_models_are_rows_of_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = predictions(tmp_path / "a" / "predictions", "HH HU UH U-", hard="HU-H")
    two = predictions(tmp_path / "b" / "predictions", "HH HH UU UU", hard="HHHH")
    out = tmp_path / "scores.json"
    assert main(["score", f"R-SFT, 1 epoch={one}", f"HS-DPO={two}", "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["all", "request", "request", "hard"]
    assert lines[1].split() == ["model", "right", "harmful", "unharmful", "unparsed", "records"]
    assert lines[2].split() == ["R-SFT,", "1", "epoch", "25.00", "40.00", "0.00", "1", "50.00"]
    assert lines[3].split() == ["0.0–75.0", "0.0–85.7", "0.0–0.0", "50.0–50.0"]
    assert lines[4].split() == ["HS-DPO", "100.00", "100.00", "100.00", "0", "100.00"]
    assert max(map(len, lines)) <= 120
    assert not any(line.startswith("benchmark") for line in lines)
    content = json.loads(out.read_text())
    assert content["mode"] == "strict"
    first = content["models"]["R-SFT, 1 epoch"]
    assert first["benchmarks"]["held-out"]["request"]["f1"] == pytest.approx(40)
    assert first["benchmarks"]["held-out"]["request"]["f1_interval"] == pytest.approx([0, 600 / 7])
    assert first["hard"] == {
        **{"accuracy": 50.0, "accuracy_interval": [50, 50]},
        **{"records": 1, "samples": 4, "unparsed": 1},
    }


def test_one_model_is_shown_by_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = predictions(tmp_path / "m", "HH HU", benchmark="all-harmful")
    assert main(["score", str(folder), "--resamples", "0"]) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("all-harmful"))
    assert row.split() == ["all-harmful", "request", "2", "66.67", "50.00", "50.00", "–", "0", "unharmful", "–"]
    assert "–: undefined" in shown
    assert "Below a figure" not in shown
    assert "hard" not in shown.splitlines()[0]


def test_models_on_other_records_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [predictions(tmp_path / "a", "HH HU"), predictions(tmp_path / "b", "HH", hard="H")]
    assert main(["score", *map(str, folders)]) == 0
    shown = capsys.readouterr().out
    assert "note: the models were not scored on the same records: b lacks 1 (held-out 1)" in shown
    assert "note: the models do not have the same hard records: a lacks 1 (held-out 1)" in shown
    assert shown.splitlines()[2].split()[-1] == "–"


def test_a_benchmark_missing_for_one_model_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = predictions(tmp_path / "a", "HH HU", ids="x"), predictions(tmp_path / "b", "HH HU", ids="x")
    predictions(one, "HH UU UH", benchmark="second", ids="y")
    assert main(["score", str(one), str(two)]) == 0
    shown = capsys.readouterr().out
    assert "note: the models were not scored on the same records: b lacks 3 (second 3)" in shown
    second = next(line for line in shown.splitlines() if line.startswith("second"))
    assert second.split()[3:] == ["66.67", "–"]


def test_different_records_at_one_position_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [predictions(tmp_path / "a", "HH UU"), predictions(tmp_path / "b", "UU HH")]
    assert main(["score", *map(str, folders)]) == 0
    what = "2 rows with the same position or id have different conversations or labels: 0, …"
    assert f"note: a and b: {what}" in capsys.readouterr().out


def test_modes_are_shown_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = predictions(tmp_path / "m", "HH HU UU U-")
    out = tmp_path / "scores.json"
    shown = {}
    for words in (["all"], ["strict", "drop", "released"], ["released", "all"]):
        assert main(["score", str(folder), "--mode", *words, "--json", str(out)]) == 0
        shown[tuple(words)] = capsys.readouterr().out
    assert len(set(shown.values())) == 1
    (text,) = set(shown.values())
    rows = [line.split() for line in text.splitlines() if line.startswith("m ")]
    # one hit, one missed; a wrong claim, none, two
    assert [row[2] for row in rows] == ["50.00", "66.67", "40.00"]
    assert [line.split()[3:6] for line in text.splitlines() if line.startswith("held-out")] == [
        ["50.00", "66.67", "40.00"]
    ]
    assert "left out (drop)" in text
    modes = json.loads(out.read_text())["modes"]
    assert [modes[mode]["models"]["m"]["average"]["request"]["unparsed"] for mode in modes] == [1, 1, 1]
    assert main(["score", "--mode", "drop", str(folder), "--resamples", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["m", "66.67", "66.67", "66.67", "1"]


def test_the_tables_as_latex(tmp_path: Path) -> None:
    folder = predictions(tmp_path / "a_b", "HH HU UU U-")
    out = tmp_path / "scores.tex"
    assert main(["score", f"a_b & c={folder}", "--latex", str(out)]) == 0
    text = out.read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert r"a\_b \& c & 50.00 {\scriptsize (" in text


def test_probabilities_are_scored_by_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold, scores = random_scores(150, 0)
    kinds = {"direct": scores, "votes": [None, *(round(4 * (score or 0)) / 4 for score in scores[1:])]}
    folder = scored_predictions(tmp_path / "m", gold, kinds)
    out = tmp_path / "scores.json"
    assert main(["score", str(folder), "--mode", "all", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    table = shown.partition("m: scores as probabilities")[2].splitlines()
    rows = [number for number, line in enumerate(table) if line.startswith("held-out")]
    assert [table[row].split()[2:4] for row in rows] == [["direct", "150"], ["votes", "150"]]
    assert "–" in table[rows[0] + 1].split()[0]  # an interval; all records have a score
    assert table[rows[1] + 1].split()[0] == "1"
    assert "ECE: expected calibration error, 15 equal-width bins" in shown
    assert max(map(len, shown.splitlines())) <= 120
    content = json.loads(out.read_text())["probabilities"]["m"]["held-out"]["request"]
    assert set(content) == {"direct", "votes"}
    low, high = content["direct"]["auroc_interval"]
    assert 80 < low < content["direct"]["auroc"] < high < 100
    assert content["votes"]["unscored"] == 1
    assert content["direct"]["recall_at_fpr_0.01"] is None  # fewer than 100 negative records
    assert content["direct"]["recall_at_fpr_0.05"] > 0
    plain = predictions(tmp_path / "plain", "HH UU")
    assert main(["score", str(plain), "--json", str(out)]) == 0
    assert "as probabilities" not in capsys.readouterr().out
    assert set(json.loads(out.read_text())) == {"mode", "resamples", "seed", "models"}


def test_rows_that_repeat_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = predictions(tmp_path / "m", "HH HU UU", prompts="aba")
    assert main(["score", str(folder)]) == 0
    what = "rows that repeat another row's conversation, counted like any other: held-out 1"
    assert f"note: m: {what}" in capsys.readouterr().out


def test_models_with_one_name_are_told_apart_by_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(predictions(tmp_path / name / "predictions", "HH")) for name in "ab"]
    assert main(["score", *folders, "--json", str(tmp_path / "scores.json")]) == 0
    assert list(json.loads((tmp_path / "scores.json").read_text())["models"]) == folders
    assert main(["score", folders[0], folders[0]]) == 2
    assert "is given twice" in capsys.readouterr().err


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": ""}\n')
    for words, what in (
        ([str(tmp_path / "absent")], "no such file or folder"),
        ([str(tmp_path)], "no generated_predictions.jsonl here"),
        ([str(tmp_path / "bad.jsonl")], "bad.jsonl:1: missing field 'label'"),
        ([str(tmp_path / "bad.jsonl"), "--mode", "loose"], "invalid choice"),
        ([str(tmp_path / "bad.jsonl"), "--json", str(tmp_path)], "expected a file"),
        ([str(tmp_path / "bad.jsonl"), "--latex", str(tmp_path)], "--latex "),
        ([str(tmp_path / "bad.jsonl"), "--resamples", "-1"], "expected a whole number from 0"),
        ([str(tmp_path / "bad.jsonl"), "--seed", "1.5"], "expected a whole number from 0"),
        ([], "required: [NAME=]PATH"),
    ):
        assert main(["score", *words]) == 2
        shown = capsys.readouterr()
        assert what in shown.err
        assert len(shown.err.splitlines()) <= 2
        assert not shown.out


@pytest.mark.parametrize("mode", ["strict", "released"])
def test_the_published_models(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    out = tmp_path / "scores.json"
    folders = [str(shared_data / "predictions" / name) for name in ("1B", "3B")]
    assert main(["score", *folders, "--mode", mode, "--json", str(out)]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120
    published = json.loads((shared_data / "published_scores.json").read_text())
    for model, found in json.loads(out.read_text())["models"].items():
        for benchmark, tasks in found["benchmarks"].items():
            (values,) = tasks.values()
            assert values["f1"] == pytest.approx(published[model][benchmark][mode], abs=0.01)


@pytest.mark.slow
def test_the_published_models_with_all_modes(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    folders = [str(shared_data / "predictions" / name) for name in ("1B", "3B")]
    assert main(["score", *folders, "--mode", "all", "--benchmarks", str(shared_data), "--json", str(out)]) == 0
    modes = json.loads(out.read_text())["modes"]
    published = json.loads((shared_data / "published_scores.json").read_text())
    for model, benchmarks in published.items():
        for benchmark, values in benchmarks.items():
            for mode in ("strict", "released"):
                (found,) = modes[mode]["models"][model]["benchmarks"][benchmark].values()
                assert found["f1"] == pytest.approx(values[mode], abs=0.01)
                low, high = found["f1_interval"]
                assert low <= found["f1"] <= high


def test_reasoning_is_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(predictions(tmp_path / name, "HH HU U-")) for name in "ab"]
    out = tmp_path / "scores.json"
    assert main(["score", *folders, "--reasoning", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    rows = {line.split("  ")[0]: line.split()[-6:] for line in shown.splitlines() if "[" in line}
    assert rows["request: concludes nothing"] == ["100.00", "[34.24,", "100.00]"] * 2
    assert rows["no reasoning"][0] == "100.00"
    first, _ = json.loads(out.read_text())["reasoning"].values()
    assert first["records"] == 3
    assert first["conclusions"]["request"]["agrees"]["n"] == 2
    assert main(["score", *folders, "--json", str(out)]) == 0
    assert "no reasoning" not in capsys.readouterr().out
    assert "reasoning" not in json.loads(out.read_text())


def test_score_imports_no_torch(tmp_path: Path) -> None:
    folder = predictions(tmp_path / "m", "HH HU UU", hard="HU")
    code = "import sys; from guardreasoner.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "score", str(folder), "--reasoning"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_steerability_is_shown_for_records_under_policies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = EmbeddedPolicies(test=60).records("test")
    for name in ("reads", "ignores"):
        for source in {record.source for record in records}:
            rows = [prediction_under_policy(r, name == "reads") for r in records if r.source == source]
            write_jsonl(tmp_path / name / source.replace("/", "-") / "generated_predictions.jsonl", rows)
        write_tasks(tmp_path / name, POLICY_TASKS)
    paths = [str(tmp_path / "reads"), str(tmp_path / "ignores")]
    assert main(["score", *paths, "--resamples", "20", "--json", str(tmp_path / "scores.json")]) == 0
    shown = capsys.readouterr().out
    assert "Steerability by policy, in percent" in shown
    models = json.loads((tmp_path / "scores.json").read_text())["models"]
    for source in ("seen", "new-combinations", "new-rules"):
        benchmark = f"policies-{source}"
        assert models["reads"]["benchmarks"][benchmark]["policy"]["f1"] == 100
        assert models["reads"]["steerability"][benchmark]["policy"]["both_right"] == 100
        ignoring = models["ignores"]["steerability"][benchmark]["policy"]
        assert (ignoring["conversations"], ignoring["pairs"], ignoring["both_right"]) == (10, 10, 0)


def prediction_under_policy(record: Record, reads: bool) -> dict[str, Any]:
    """Return the row of a guard that is always right, or of one that ignores the policy."""
    labels = record.labels if reads else {"rule": "rule 1", "policy": "violates"}
    row = record.as_json()
    return {
        "prompt": render(record, POLICY_TASKS),
        "label": answer_block(record.labels, POLICY_TASKS),
        "predict": answer_block(labels, POLICY_TASKS),
        "record_id": record.id,
        "labels": record.labels,
        **{name: row[name] for name in ("messages", "policy") if name in row},
    }
