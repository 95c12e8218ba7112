import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.cli.main import main
from guardreasoner.evaluation.attacks import Family, answer_block_in_prompt, attack_record, leetspeak
from guardreasoner.prompts import answer_block, render
from guardreasoner.records import Record, write_jsonl
from guardreasoner.tasks import GUARD_TASKS

WORDS = {"H": "harmful", "U": "unharmful"}


def predictions(
    folder: Path,
    words: str,
    families: tuple[Family, ...] = (leetspeak,),
    benchmark: str = "embedded/home",
    columns: Mapping[str, Any] | None = None,
) -> Path:
    """Write predictions; a word is gold, the verdict before, then one for each family; "-" is none."""
    rows: dict[str, list[dict[str, object]]] = {}

    def add(record: Record, letter: str) -> None:
        verdict = answer_block({"request": WORDS[letter]}, GUARD_TASKS) if letter in WORDS else "Hm."
        row = {"prompt": render(record, GUARD_TASKS), "label": answer_block(record.labels, GUARD_TASKS)}
        row |= {"predict": verdict, "record_id": record.id, "labels": record.gold(), **(columns or {})}
        rows.setdefault(record.source.replace("/", "-"), []).append(row)

    for number, word in enumerate(words.split()):
        original = Record(f"{benchmark}/{number}", "Test it.", labels={"request": WORDS[word[0]]}, source=benchmark)
        add(original, word[1])
        for family, letter in zip(families, word[2:], strict=True):
            attack = attack_record(original, family)
            assert attack is not None
            add(attack, letter)
    for name, group in rows.items():
        write_jsonl(folder / name / "generated_predictions.jsonl", group)
    return folder


def test_the_worst_family_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = predictions(tmp_path / "m", "HHHU HHH- UUUU UUHU", (leetspeak, answer_block_in_prompt))
    out = tmp_path / "found.json"
    assert main(["robustness", str(folder), "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0].split() == ["request:", "harmful", "F1", "unparsed"]
    assert lines[1].split() == ["family", "n", "before", "after", "drop", "flipped", "before", "after"]
    first, second = (line.split() for line in lines[2:4])
    assert first[:5] == ["answer_block_in_prompt", "4", "100.0", "0.0", "100.0"]
    assert first[-7:] == ["1/2", "50.0", "9.5", "to", "90.5", "0", "1"]
    assert second[:5] == ["leetspeak", "4", "100.0", "80.0", "20.0"]
    assert second[-2:] == ["0", "0"]
    content = json.loads(out.read_text())
    assert (content["model"], content["resamples"]) == ("m", 2000)
    row = next(row for row in content["families"] if row["family"] == "answer_block_in_prompt")
    assert (row["flipped"]["count"], row["flipped"]["total"], row["flipped"]["percent"]) == (1, 2, 50)
    assert row["drop"] == 100
    assert row["drop_interval"] == [100, 100]


def test_benchmarks_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions(tmp_path / "m", "HHU UUU", benchmark="one")
    predictions(tmp_path / "m", "HHH UUU", benchmark="two")
    assert main(["robustness", str(tmp_path / "m")]) == 0
    assert "two" not in capsys.readouterr().out
    assert main(["robustness", str(tmp_path / "m"), "--benchmarks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["leetspeak", "one", "2"],
        ["leetspeak", "all", "4"],
        ["leetspeak", "two", "2"],
    ]


def test_attacked_records_are_in_no_number_over_several_benchmarks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probabilities = {"direct": {"request": {"harmful": 0.3, "unharmful": 0.7}}}
    columns = {"extra": {"lookalike": "yes", "team": "red"}, "scores": probabilities}
    found = {}
    for name, families in (("attacked", (leetspeak, answer_block_in_prompt)), ("plain", ())):
        folder = tmp_path / name / "m"
        for benchmark, words in (("one", "HHUU UUHU HUU-"), ("two", "HHHU U-H-")):
            short = " ".join(word[: 2 + len(families)] for word in words.split())
            predictions(folder, short, families, benchmark, columns)
        out = tmp_path / f"{name}.json"
        flags = ("--mode", "all", "--by", "team", "source", "--reasoning", "--resamples", "50", "--json", str(out))
        assert main(["score", str(folder), *flags]) == 0
        found[name] = json.loads(out.read_text())
        note = f"{folder}: 10 attacked records are in the rows of their benchmarks alone; robustness"
        assert (note in capsys.readouterr().out) == (name == "attacked")
        for mode in found[name]["modes"].values():
            assert mode["models"]["m"].pop("files") == [str(folder)]
    parts = [mode["models"]["m"]["benchmarks"] for mode in found["attacked"]["modes"].values()]
    for rows in (*parts, found["attacked"]["probabilities"]["m"]):
        of_families = {name: rows.pop(name) for name in list(rows) if "@" in name}
        assert len(of_families) == 4
    assert found["attacked"] == found["plain"]
    assert parts[0]["one"]["request"]["n"] == 3
    assert of_families["one@leetspeak"]["request"]["direct"]["n"] == 3


def test_compare_and_report_leave_attacked_records_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attacked = predictions(tmp_path / "a", "HHU UUH")
    plain = predictions(tmp_path / "b", "HU UU", ())
    out, page = tmp_path / "found.json", tmp_path / "page.html"
    assert main(["compare", str(attacked), str(plain), "--resamples", "50", "--json", str(out)]) == 0
    note = f"{attacked}: 2 attacked records are left out; robustness compares them with their originals"
    assert f"note: {note}" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert (content["records"], content["runs"]["a"]["accuracy"]) == (2, 100)
    assert list(content["runs"]["a"]["benchmarks"]) == ["embedded-home"]
    assert main(["report", str(attacked), str(plain), "--resamples", "50", "--out", str(page)]) == 0
    assert "2 attacked records are left out" in page.read_text()


def test_attacked_records_alone_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = predictions(tmp_path / "m", "HHU UUU") / "embedded-home@leetspeak"
    out = tmp_path / "found.json"
    assert main(["score", str(folder), "--json", str(out)]) == 0
    assert "attacked records" not in capsys.readouterr().out
    (model,) = json.loads(out.read_text())["models"].values()
    assert (model["records"], model["accuracy"]) == (2, 50)


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = predictions(tmp_path / "plain", "HH UU", ())
    lonely = predictions(tmp_path / "lonely", "HHH")
    (lonely / "embedded-home" / "generated_predictions.jsonl").unlink()
    for words, what in (
        ([str(tmp_path / "absent")], "no such file or folder"),
        ([str(plain)], "plain: none of the 2 records is attacked\nhint: "),
        ([str(lonely)], "record 'embedded/home/0@leetspeak': its original 'embedded/home/0'"),
        ([str(plain), "--json", str(tmp_path)], "expected a file"),
        ([], "required: predictions"),
    ):
        assert main(["robustness", *words]) == 2
        shown = capsys.readouterr()
        assert what in shown.err
        assert len(shown.err.splitlines()) <= 2
        assert not shown.out


def test_robustness_imports_no_torch(tmp_path: Path) -> None:
    folder = predictions(tmp_path / "m", "HHU UUU")
    code = "import sys; from guardreasoner.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "robustness", str(folder)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
