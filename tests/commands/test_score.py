import json
import subprocess
import sys
from pathlib import Path

import pytest

from guardreasoner.__main__ import main
from guardreasoner.prompts import answer_block, render
from guardreasoner.records import Record, write_jsonl
from guardreasoner.tasks import GUARD_TASKS


def predictions(folder: Path, words: str, hard: str = "", benchmark: str = "held-out") -> Path:
    """Write a folder of predictions: a word is gold and verdict of the request, "HU"; ``hard`` verdicts on record 0."""
    names = {"H": "harmful", "U": "unharmful"}

    def answer(letter: str) -> str:
        return answer_block({"request": names[letter]}, GUARD_TASKS) if letter in names else "…"

    rows = []
    for number, word in enumerate(words.split()):
        labels = {"request": names[word[0]]}
        text = render(Record("", "p"), GUARD_TASKS)
        rows.append({"prompt": text, "label": labels["request"], "predict": answer(word[1])})
        rows[-1] |= {"record_id": str(number), "labels": labels}
    write_jsonl(folder / benchmark / "generated_predictions.jsonl", rows)
    samples = [
        {"record_id": "0", "labels": rows[0]["labels"], "index": index, "seed": 0, "predict": answer(letter)}
        for index, letter in enumerate(hard)
    ]
    if samples:
        write_jsonl(folder / benchmark / "hard_samples.jsonl", samples)
    return folder


def test_models_are_rows_of_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = predictions(tmp_path / "a" / "predictions", "HH HU UH U-", hard="HU-H")
    two = predictions(tmp_path / "b" / "predictions", "HH HH UU UU", hard="HHHH")
    out = tmp_path / "scores.json"
    assert main(["score", f"R-SFT, 1 epoch={one}", f"HS-DPO={two}", "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["all", "request", "request", "hard"]
    assert lines[1].split() == ["model", "right", "harmful", "unharmful", "unparsed", "records"]
    assert lines[2].split() == ["R-SFT,", "1", "epoch", "25.00", "40.00", "0.00", "1", "50.00"]
    assert lines[3].split() == ["HS-DPO", "100.00", "100.00", "100.00", "0", "100.00"]
    assert max(map(len, lines)) <= 120
    assert not any("benchmark " in line for line in lines)
    content = json.loads(out.read_text())
    assert content["mode"] == "strict"
    first = content["models"]["R-SFT, 1 epoch"]
    assert first["benchmarks"]["held-out"]["request"]["f1"] == pytest.approx(40)
    assert first["hard"] == {"accuracy": 50.0, "records": 1, "samples": 4}


def test_one_model_is_shown_by_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = predictions(tmp_path / "m", "HH HU", benchmark="all-harmful")
    assert main(["score", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "all-harmful  request  2  66.67     50.00         0  harmful 66.67  unharmful –" in shown
    assert "hard" not in shown.splitlines()[0]


def test_models_on_other_records_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [predictions(tmp_path / "a", "HH HU"), predictions(tmp_path / "b", "HH", hard="H")]
    assert main(["score", *map(str, folders)]) == 0
    shown = capsys.readouterr().out
    assert "note: the models were not scored on the same records" in shown
    assert "note: the models have not the same hard records" in shown
    assert shown.splitlines()[2].split()[-1] == "–"


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
        ([str(tmp_path / "bad.jsonl"), "--json", str(tmp_path)], "is a folder"),
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


def test_reasoning_is_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(predictions(tmp_path / name, "HH HU U-")) for name in "ab"]
    out = tmp_path / "scores.json"
    assert main(["score", *folders, "--reasoning", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    rows = {line.split("  ")[0]: line.split()[-6:] for line in shown.splitlines() if "[" in line}
    assert rows["request: concludes nothing"] == ["100.00", "[34.24,", "100.00]"] * 2
    assert rows["no reasoning"][0] == "100.00"
    written = json.loads(out.read_text())["models"]
    (first, _) = written.values()
    assert first["reasoning"]["records"] == 3
    assert first["reasoning"]["conclusions"]["request"]["agrees"]["n"] == 2
    assert main(["score", *folders, "--json", str(out)]) == 0
    assert "no reasoning" not in capsys.readouterr().out
    assert "reasoning" not in json.loads(out.read_text())["models"][next(iter(written))]


def test_score_imports_no_torch(tmp_path: Path) -> None:
    folder = predictions(tmp_path / "m", "HH HU UU", hard="HU")
    code = "import sys; from guardreasoner.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "score", str(folder), "--reasoning"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
