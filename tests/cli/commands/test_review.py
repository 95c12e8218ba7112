"""The verb ``review``: rejected input, messages, and summaries without a server."""

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from tests.support.ratings import rating, write_ratings
from tests.support.review_runs import FIRST, SECOND, open_session, two_runs, write_run
from tests.support.serving import Serving

Start = Callable[..., str]
YES = {"coherent": True, "consistent": True, "true": True, "complete": False}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rated(folder: Path) -> list[str]:
    """Write ratings of two raters, and return the arguments for the runs."""
    words = two_runs(folder)
    for rater in ("ann", "bob"):
        session = open_session(folder, words, rater)
        for case in session.review_set.items[:4]:
            session.rate(case, {"A": YES, "B": YES}, next(one.slot for one in case.answers if one.run == SECOND))
        session.undo()
        session.file.close()
    return words


def test_a_summary_in_tables_and_json(tmp_path: Path, start: Start) -> None:
    rated(tmp_path)
    shown = start("review", "--summary", "ratings.jsonl", "--json", "found.json")
    assert max(map(len, shown.splitlines())) <= 120
    assert [line for line in shown.splitlines() if line.startswith(("Raters", "Reasoning", "Which", "Agreement"))] == [
        *("Raters", "Reasoning", "Which is better overall", "Agreement of raters")
    ]
    row = next(line for line in shown.splitlines() if line.startswith(f"{SECOND}  {FIRST}"))
    assert row.split() == [SECOND, FIRST, "3", "0", "0", "0.00", "0.250"]
    assert "2 retracted" in shown
    assert shown.endswith("written: found.json\n")
    content = json.loads(Path("found.json").read_text())
    assert (content["files"], content["raters"]) == (["ratings.jsonl"], {"ann": 3, "bob": 3})
    assert content["rubric"][FIRST]["complete"]["percent"] == 0


def test_with_runs_only_their_texts_count(tmp_path: Path, start: Start) -> None:
    words = rated(tmp_path)
    counted = start("review", *words, "--summary", "ratings.jsonl")
    assert re.search(rf"^{FIRST} +{SECOND} +0 +0 +3 ", counted, re.MULTILINE)  # in the order of the words
    assert "of other texts" not in counted
    write_run(tmp_path / "two", "UH-UHU", texts=["Other."] * 6)
    shown = start("review", *words, "--summary", "ratings.jsonl")
    assert shown.startswith("No ratings.\n")
    assert "6 of other texts" in shown


def test_a_summary_without_ratings_is_not_an_error(start: Start) -> None:
    Path("none.jsonl").touch()
    assert start("review", "--summary", "none.jsonl", "--json", "none.json").splitlines()[0] == "No ratings."
    assert json.loads(Path("none.json").read_text())["wins"] == []


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = (str(write_run(tmp_path / name, message)) for name, message in (("a", "HUHU"), ("b", "HU")))
    good = write_ratings(tmp_path / "good.jsonl", rating("r", a="yyyy"))
    bad = write_ratings(tmp_path / "bad.jsonl", rating("r", a="yyyy"), {"kind": "x"})
    Path("text").write_text("not ours")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for words, what in (
            ([], "required: a run"),
            ([str(tmp_path / "absent")], "no such file or folder"),
            ([run, other], "b lacks 2"),
            ([run, run], "is given twice"),
            ([run, "--sample", "5"], "--sample 5: there are 4 records"),
            ([run, "--sample", "0"], "expected a whole number from 1"),
            ([run, "--seed", "-1"], "expected a whole number from 0"),
            ([run, "--port", "70000"], "expected a number from 0 to 65535"),
            ([run, "--port", str(taken.getsockname()[1])], "Address already in use"),
            ([run, "--rater", " "], "expected a printable name"),
            ([run, "--rater", "../x"], "'../x' cannot be a file name"),
            ([run, "--ratings", str(tmp_path)], "--ratings "),
            ([run, "--ratings", "text"], "text: the last line is not a rating"),
            ([run, "--ratings", str(bad)], "bad.jsonl:2: kind: expected rating"),
            ([run, "--ratings", f"{bad}/y"], "cannot be written"),
            ([run, "--host", "0.0.0.0"], "unknown option --host"),
            ([run, "--json", "x"], "--json needs --summary"),
            (
                ["--label", "queue.jsonl", "--summary", str(good), "--records", "new.jsonl", "--sample", "-1"],
                "--sample: expected a whole number from 1",
            ),
            (["--summary", str(good), "--port", "1"], "--port cannot be combined with --summary"),
            (["--summary", str(bad)], "bad.jsonl:2: kind: expected rating"),
            (["--summary", str(good), str(good)], "occurs twice"),
            (["--summary", "absent.jsonl"], "absent.jsonl: no such file"),
        ):
            assert main(["review", *words]) == 2, words
            shown = capsys.readouterr()
            assert what in shown.err
            assert len(shown.err.splitlines()) <= 2
            assert not shown.out
    assert Path("text").read_text() == "not ours"
    assert not Path("logs").exists()


def test_left_out_records_are_reported(tmp_path: Path) -> None:
    words = [f"{name}={write_run(tmp_path / name, message)}" for name, message in (("a", "HUHU"), ("b", "HU"))]
    with Serving(tmp_path, [*words, "--intersect", "--rater", "ann"]) as server:
        assert server.lines[:2] == [
            "2 records of 2 runs; ann has rated 0 and skipped 0",
            "left out because some run lacks them: a 2",
        ]
        assert server.lines[2] == "ratings: logs/ratings/ann.jsonl"


def test_the_published_models_open(shared_data: Path, tmp_path: Path) -> None:
    with Serving(
        tmp_path, [str(shared_data / "predictions" / name) for name in ("1B", "3B")] + ["--rater", "ann"]
    ) as at:
        assert "flipped" in at.get()
        assert at.lines[0] == "2,193 records of 2 runs; ann has rated 0 and skipped 0"  # 2 have equal answers


def test_serving_imports_no_torch(tmp_path: Path) -> None:
    with Serving(tmp_path, [str(write_run(tmp_path / "m", "HU")), "--rater", "ann"]) as server:
        server.post("rate?at=1", **{"A.true": "yes"})
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "/numpy/" in maps
    assert "/torch/" not in maps
