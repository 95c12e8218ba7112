import json
from pathlib import Path

import pytest

from guardreasoner.__main__ import main
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout, write_jsonl
from guardreasoner.tasks import GUARD_TASKS


def rollouts(folder: Path, words: str, model: str = "m") -> str:
    """Write a folder, one record a word: "HU" is a harmful request judged harmful, then unharmful; "-" no verdict."""
    names = {"H": "harmful", "U": "unharmful"}
    records, outputs = [], []
    for number, word in enumerate(words.split()):
        records.append(Record(str(number), "p", labels={"request": "harmful"}, source="[corpus]"))
        for index, letter in enumerate(word):
            text = answer_block({"request": names[letter]}, GUARD_TASKS) if letter in names else "…"
            outputs.append(Rollout(str(number), model, "f", index, 0, text))
    write_jsonl(folder / "records.jsonl", records)
    write_jsonl(folder / "rollouts.jsonl", outputs)
    return str(folder)


def test_pairs_are_counted_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pairs.jsonl"
    folders = [rollouts(tmp_path / "1", "HH HU UU H-"), rollouts(tmp_path / "2", "HH UU UU HH", "n")]
    assert main(["pairs", "--rollouts", *folders, "--out", str(out)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split("  ")[0] == "source"
    assert shown[1].split() == ["[corpus]", "1", "2", "1", "1", "2"]
    assert shown[2].split() == ["total", "1", "2", "1", "1", "2"]
    assert shown[3].startswith("16 outputs of 4 records: 2 hard records, weights 0.5 to 1.5; written: ")
    pairs = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(pair["record"]["id"], pair["excess_errors"], pair["weight"]) for pair in pairs] == [
        ("1", 2, 1.5),
        ("3", -2, 0.5),
    ]


def test_a_preset_is_where_options_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [rollouts(tmp_path / "1", "HHHU HHUU HUUU H-"), rollouts(tmp_path / "2", "HHHU HHHH HHHH H-", "n")]
    out = tmp_path / "pairs.jsonl"
    assert main(["pairs", "--rollouts", *folders, "--out", str(out), "--preset", "released"]) == 0
    assert "duplicates" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["rule"], row["task"], row["weight"]) for row in rows] == [
        ("longest/longest", "request", pytest.approx(weight)) for weight in (0.8, 1.0, 1.2)
    ]
    more = ["--gamma", "0.4", "--chosen", "shortest", "--pool", "--seed", "7"]
    assert main(["pairs", "--rollouts", *folders, "--out", str(out), "--preset", "released", *more]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["rule"] for row in rows} == {"shortest/longest"}
    assert {len(row["votes"]) for row in rows} == {8}


@pytest.mark.parametrize(
    ("words", "hint"),
    [("HH HH", "outputs agree"), ("UU UU", "no output is right"), ("-- --", "most outputs give no verdict")],
)
def test_no_hard_record_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, hint: str) -> None:
    out = tmp_path / "pairs.jsonl"
    assert main(["pairs", "--rollouts", rollouts(tmp_path / "r", words), "--out", str(out)]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1].startswith("total")
    error, advice = shown.err.splitlines()
    assert error.startswith("error: no record is hard")
    assert hint in advice
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "flags", "what"),
    [
        ("H U", [], "with k = 1 nothing can be mixed"),
        ("HU", ["--gamma", "1"], "gamma must be in [0, 1), got 1.0"),
        ("HU", ["--gamma", "nan"], "gamma must be in [0, 1), got nan"),
        ("HU", ["--gamma", "much"], "invalid float value"),
        ("HU", ["--reading", "strict"], "invalid choice"),
        ("HU", ["--unparsed", "wrong"], "unknown option --unparsed"),
        ("HU", ["--out", "."], "is a folder"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, flags: list[str], what: str
) -> None:
    out = tmp_path / "pairs.jsonl"
    assert main(["pairs", "--rollouts", rollouts(tmp_path / "r", words), "--out", str(out), *flags]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert len(error.splitlines()) <= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]


def test_missing_rollouts_say_what_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairs", "--rollouts", str(tmp_path / "r"), "--out", str(tmp_path / "pairs.jsonl")]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert "no such file or folder" in error
    command = "python -m guardreasoner predict --config configs/mine.yaml (or configs/synthesize.yaml)"
    assert hint == f"hint: {command} writes rollouts"


@pytest.mark.parametrize(("flags", "hard"), [([], 165), (["--reading", "released"], 166)])
def test_the_published_models(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], hard: int
) -> None:
    out = tmp_path / "pairs.jsonl"
    folders = [str(shared_data / "predictions" / name) for name in ("1B", "3B")]
    assert main(["pairs", "--rollouts", *folders, "--out", str(out), *flags]) == 0
    assert len(out.read_text().splitlines()) == hard
    assert f"{hard} hard records" in capsys.readouterr().out
