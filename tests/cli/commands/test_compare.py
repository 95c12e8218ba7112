import json
import subprocess
import sys
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.records import write_jsonl
from guardreasoner.records.jsonl import read_jsonl
from tests.support.output_files import predictions

FEW = ("--resamples", "200")


def test_two_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = predictions(tmp_path / "a", "HH HU UH U- HU", hard="HHUU")
    two = predictions(tmp_path / "b", "HU HH UU UU HH", hard="HHHU")
    out, flips, tex = tmp_path / "c.json", tmp_path / "f.jsonl", tmp_path / "c.tex"
    files = ("--json", str(out), "--flips", str(flips), "--latex", str(tex))
    assert main(["compare", str(one), f"second={two}", *FEW, *files]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    assert "a (first) and second (second)" in shown
    row = next(line for line in shown.splitlines() if line.startswith("held-out"))
    # F1: 2 / (2 + 2 + 2) and 4 / (4 + 1); right: 1 and 4 of 5
    assert row.split() == ["held-out", "request", "5", "33.33", "80.00", "+46.67", "+60.00", "4", "1", "0.375"]
    assert "criterion" not in shown
    content = json.loads(out.read_text())
    assert (content["records"], content["resamples"]) == (5, 200)
    (pair,) = content["pairs"]
    assert (pair["first"], pair["second"], pair["hard"]) == ("a", "second", 25)
    assert (pair["all_right"]["gained"], pair["all_right"]["lost"], pair["all_right"]["p"]) == (4, 1, 0.375)
    listed = [row for _, row in read_jsonl(flips)]
    assert [row["record_id"] for row in listed] == ["0", "1", "2", "3", "4"]
    assert listed[3] == {
        **{"first": "a", "second": "second", "record_id": "3", "benchmark": "held-out", "task": "request"},
        **{"gold": "unharmful", "verdicts": {"a": [None], "second": ["unharmful"]}, "gained": True},
    }
    assert f"written: {flips} (5 flips)" in shown
    assert tex.read_text().count(r"\begin{tabular}") == 2


def test_tokens_and_seconds_are_shown_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast, slow, unknown = (predictions(tmp_path / name, "HH UU") for name in ("direct", "reasoned", "other"))
    for folder, seconds, tokens in ((fast, 2.0, 140), (slow, 20.0, 1160)):
        cost = {"seconds": seconds, "device": "cpu", "devices": 1, "outputs": 10, "tokens": tokens}
        (folder / "cost.manifest.json").write_text(json.dumps(cost))
    out = tmp_path / "c.json"
    assert main(["compare", str(fast), str(slow), str(unknown), *FEW, "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("Cost of the outputs"))
    assert [line.split() for line in lines[place + 3 : place + 6]] == [
        ["direct", "CPU", "10", "14.0", "2.0", "5.0"],
        ["reasoned", "CPU", "10", "116.0", "20.0", "0.5"],
        ["other", *"–––––"],
    ]
    assert json.loads(out.read_text())["costs"]["direct"][0]["tokens"] == 140
    assert main(["compare", str(unknown), str(predictions(tmp_path / "b", "HH UU")), *FEW]) == 0
    assert "Cost of the outputs" not in capsys.readouterr().out


def test_seeds_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        predictions(tmp_path / name, words) for name, words in (("s1", "HH UU"), ("s2", "HU UU"), ("b", "HH UH"))
    ]
    assert main(["compare", f"A={folders[0]},{folders[1]}", f"B={folders[2]}", *FEW]) == 0
    shown = capsys.readouterr().out
    assert "Seeds: A 2, B 1." in shown
    assert "No p for runs with several seeds" in shown
    assert next(line for line in shown.splitlines() if line.startswith("held-out")).split()[-1] == "–"


def test_different_records_are_rejected_without_intersect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(predictions(tmp_path / "a", "HH HU UU")), str(predictions(tmp_path / "b", "HH HU"))]
    assert main(["compare", *folders, *FEW]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: the runs did not answer the same records: b lacks 1 (held-out 1)",
        "hint: --intersect compares them on the 2 that all have",
    ]
    assert main(["compare", *folders, *FEW, "--intersect"]) == 0
    assert "Left out because some runs lack them: records of a 1." in capsys.readouterr().out


def test_reordered_rows_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [predictions(tmp_path / "a", "HH UU", prompts="xy"), predictions(tmp_path / "b", "UU HH", prompts="yx")]
    assert main(["compare", *map(str, folders), *FEW]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: a and b: 2 records differ under the same id, the first is '0'"
    assert "reordered" in hint


def test_hard_records_of_only_one_run_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [predictions(tmp_path / "a", "HH HU", hard="HU"), predictions(tmp_path / "b", "HH HU")]
    assert main(["compare", *map(str, folders), *FEW]) == 0
    assert "Hard records are not compared: no outputs on them from b." in capsys.readouterr().out


def test_the_criteria_of_the_demo_and_by_role(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("R-SFT, 1 epoch", "R-SFT, 3 epochs", "HS-DPO")
    folders = [predictions(tmp_path / str(n), "HH UU", hard="HU") for n in range(3)]
    words = [f"{name}={folder}" for name, folder in zip(names, folders, strict=True)]
    assert main(["compare", *words, *FEW]) == 0
    shown = capsys.readouterr().out
    assert "R-SFT: accuracy above 55 %" in shown
    assert "met" in shown
    (kept,) = [line.split() for line in shown.splitlines() if line.startswith("HS-DPO: reasoning quality kept")]
    assert kept[-2:] == ["met", "+0.00"]
    out = tmp_path / "c.json"
    others = [f"{name}={folder}" for name, folder in zip("xyz", folders, strict=True)]
    assert main(["compare", *others, *FEW, "--json", str(out), "--criteria", "rsft=x", "hsdpo=z"]) == 0
    criteria = json.loads(out.read_text())["criteria"]
    assert [one["verdict"] for one in criteria] == [
        *("met", "not met", "met"),
        *("met", "not decidable", "not decidable"),
    ]
    assert (criteria[0]["figure"], criteria[0]["figure_interval"]) == (100, [100, 100])


def test_worse_reasoning_fails_the_criterion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [predictions(tmp_path / name, "HH UU HH UU") for name in ("before", "after")]
    for folder, conclusions in zip(folders, (("harmful", "unharmful"), ("harmful", "harmful")), strict=True):
        path = folder / "held-out" / "generated_predictions.jsonl"
        rows = [row for _, row in read_jsonl(path)]
        for number, row in enumerate(rows):
            row["predict"] = f"The request is {conclusions[number % 2]}.\n\n{row['predict']}"
        write_jsonl(path, rows)
    out = tmp_path / "c.json"
    words = [*map(str, folders), *FEW, "--json", str(out), "--criteria", "rsft=before", "hsdpo=after"]
    assert main(["compare", *words]) == 0
    kept = json.loads(out.read_text())["criteria"][3]
    # the second contradicts the two answers that are "unharmful"
    assert (kept["figure"], kept["verdict"]) == (-50, "not decidable")
    assert kept["figure_interval"] == [-100, 0]
    assert main(["compare", *words, "--resamples", "0"]) == 0
    assert "reasoning quality kept (at most 2 points lower)" in capsys.readouterr().out


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (str(predictions(tmp_path / name, "HH UU")) for name in "ab")
    for words, what in (
        ([one], "at least two runs, got 1"),
        ([one, one], "is given twice"),
        ([f"A={one},{one}", two], "is given twice"),
        ([one, two, "--criteria"], "no run is named as in the demo"),
        ([one, two, "--criteria", "best=a"], "expected rsft=NAME, longer=NAME, hsdpo=NAME, got 'best=a'"),
        ([one, two, "--criteria", "rsft=c"], "unknown run 'c'"),
        ([one, two, "--criteria", "rsft=a", "rsft=b"], "rsft is given twice"),
        ([one, two, "--flips", str(tmp_path)], "--flips "),
        ([one, f"{two},{tmp_path / 'absent'}"], "absent: no such file or folder"),
        ([one, two, "--mode", "loose"], "invalid choice"),
    ):
        assert main(["compare", *words]) == 2, words
        shown = capsys.readouterr()
        assert what in shown.err
        assert len(shown.err.splitlines()) <= 2
        assert not shown.out


def test_the_published_models(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c.json"
    runs = [f"{name}={shared_data / 'predictions' / name}" for name in ("1B", "3B")]
    assert main(["compare", *runs, "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "F1 compared with the paper" in shown
    assert max(map(len, shown.splitlines())) <= 120
    content = json.loads(out.read_text())
    assert content["records"] == 2195
    assert len(content["published"]) == 6
    (pair,) = content["pairs"]
    by_benchmark = {row["benchmark"]: row for row in pair["benchmarks"]}
    assert by_benchmark["HarmBenchPrompt"]["p"] < 0.001
    assert by_benchmark["HarmBenchPrompt"]["f1_interval"][1] < 0
    # as the README of the data counts disagreements: one right, one wrong or unparsable
    assert {name: row["gained"] + row["lost"] for name, row in by_benchmark.items()} == {
        **{"HarmBenchPrompt": 44, "AegisSafetyTest": 28, "SimpleSafetyTests": 2, "HarmBenchResponse": 40},
        **{"XSTestReponseHarmful": 13, "XSTestResponseRefusal": 38},
    }


def test_compare_imports_no_torch(tmp_path: Path) -> None:
    folders = [str(predictions(tmp_path / name, "HH HU UU", hard="HU")) for name in "ab"]
    code = "import sys; from guardreasoner.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "compare", *folders], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
