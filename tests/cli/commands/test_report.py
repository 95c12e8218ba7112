"""The verb ``report``: the page, rejected input, and atomic writing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.records import write_jsonl
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.review.items import make_review_set
from guardreasoner.review.ratings_file import RatingsFile
from guardreasoner.review.session import Session
from guardreasoner.sources.named_predictions import read_named_predictions
from tests.support.output_files import predictions
from tests.support.pages import Reader
from tests.support.report_runs import lay_out_chain, write_events
from tests.support.scored_predictions import random_scores, scored_predictions

FEW = ("--resamples", "100")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Work in a folder with the predictions of two models and their lineage."""
    monkeypatch.chdir(tmp_path)
    return list(lay_out_chain().values())


def text(path: str) -> str:
    return " ".join(Reader(Path(path).read_text(encoding="utf-8")).text.split())


def test_a_page_is_written(runs: list[str], start: Callable[..., str]) -> None:
    message = start("report", f"R-SFT, 3 epochs={runs[0]}", f"HS-DPO={runs[1]}", *FEW)
    assert message == "written: logs/report.html\n"
    shown = text("logs/report.html")
    for words in (
        *("HS-DPO against R-SFT, 3 epochs", "Criteria of the two-stage plan", "checkpoints/hsdpo (HS-DPO)"),
        *("2 hard records of 4, 2 pairs", "report 'R-SFT, 3 epochs=logs/predictions/rsft'", "100 resamples, seed 0"),
    ):
        assert words in shown, words
    assert Path("logs/report.html").stat().st_size < 2_000_000


def test_seeds_of_one_run_and_other_names(runs: list[str], start: Callable[..., str]) -> None:
    third = predictions(Path("third"), "HH HU UU UU", hard="HHHH")
    start("report", f"a={runs[0]}", f"b={runs[1]},{third}", *FEW, "--out", "deep/down/page.html")
    shown = text("deep/down/page.html")
    assert "Seeds: a 1, b 2." in shown
    assert "third: no manifest found." in shown
    assert "The answers of a run's seeds are added up." in shown


def test_probabilities_of_shared_records_are_plotted(start: Callable[..., str]) -> None:
    gold, scores = random_scores(120, 0)
    one = scored_predictions(Path("one"), gold, {"direct": scores, "votes": scores})
    two = scored_predictions(Path("two"), gold[:100], {"direct": scores[:100]})
    start("report", str(one), str(two), *FEW, "--intersect")
    shown = text("logs/report.html")
    for words in (
        "Scores as probabilities: one",
        "ROC curves: request",
        "Reliability: request",
        "request direct 100",
    ):
        assert words in shown, words


def test_curves_rollouts_and_examples_can_be_named(runs: list[str], start: Callable[..., str]) -> None:
    write_events(Path("mine/curves"), {"train/loss": [3, 2]})
    named = ("--logs", "mine", "--rollouts", "logs/rollouts/rsft", "--examples", "0")
    start("report", *runs, *FEW, *named, "--criteria", "rsft=rsft", "hsdpo=hsdpo")
    shown = text("logs/report.html")
    assert "Values of the curves: mine/curves" in shown
    assert "checkpoints/hsdpo (" not in shown
    assert "Given rollouts" in shown
    assert "γ 0.5" in shown
    assert "rsft to hsdpo: gained 2 records, 0 shown, 2 not shown." in shown
    assert "no run is named for longer" in shown


@pytest.mark.slow
def test_ratings_of_the_compared_texts_are_shown(runs: list[str], start: Callable[..., str]) -> None:
    cases = make_review_set(read_named_predictions([f"a={runs[0]}", f"b={runs[1]}"], "review"), "ann")
    file = RatingsFile(Path("ann.jsonl"))
    session = Session(cases, file, "ann")
    for case in cases.items:
        slots = {one.run: one.slot for one in case.answers}
        session.rate(case, {slots["a"]: {"coherent": False}, slots["b"]: {"coherent": True}}, better=slots["b"])
    file.close()
    start("report", f"a={runs[0]}", f"b={runs[1]}", *FEW, "--ratings", "ann.jsonl")
    shown = text("logs/report.html")
    assert "Blind human ratings" in shown
    assert "No human ratings given" not in shown
    # b is better each time: two-sided sign test, 2 / 2ⁿ for the n records whose answers differ
    assert len(cases.items) == 3
    assert "0.25" in shown
    path = Path(runs[1], "held-out", "generated_predictions.jsonl")
    rows = [row for _, row in read_jsonl(path)]
    rows[0]["predict"] = f"Or rather: {rows[0]['predict']}"
    write_jsonl(path, rows)
    start("report", f"a={runs[0]}", f"b={runs[1]}", *FEW, "--ratings", "ann.jsonl")
    # the rating of what is no longer there does not count: three records, 2 / 2³
    assert "0.250" in text("logs/report.html")
    start("report", f"a={runs[0]}", f"c={runs[1]}", *FEW, "--ratings", "ann.jsonl")
    assert "No ratings." in text("logs/report.html")
    start("report", f"a={runs[0]}", f"b={runs[1]}", *FEW)
    assert "No human ratings given" in text("logs/report.html")


@pytest.mark.slow
def test_the_published_models(shared_data: Path, start: Callable[..., str]) -> None:
    start("report", *(f"{name}={shared_data / 'predictions' / name}" for name in ("1B", "3B")))
    shown = text("logs/report.html")
    for words in ("3B is worse than 1B.", "68 97 0.029", "F1 compared with the paper"):
        assert words in shown, words
    assert Path("logs/report.html").stat().st_size < 500_000


@pytest.mark.slow
def test_bad_input_is_one_line_and_writes_nothing(runs: list[str], refused: Callable[..., str]) -> None:
    Path("other").mkdir()
    one, two = runs
    for words, what in (
        ([one], "at least two runs, got 1"),
        ([one, "absent"], "absent: no such file or folder"),
        ([one, two, "--out", "other"], "--out other: "),
        ([one, two, "--out", "rows.jsonl/page.html"], "rows.jsonl/page.html: cannot be written: "),
        ([one, two, "--logs", "absent"], "absent: no such folder"),
        ([one, two, "--ratings", "absent.jsonl"], "absent.jsonl: "),
        ([one, two, "--ratings", "rows.jsonl"], "rows.jsonl:1: "),
        ([one, two, "--logs", "other"], "other: no TensorBoard event files"),
        ([one, two, "--rollouts", "other"], "other: neither rollouts.jsonl nor predictions here"),
        ([one, two, "--examples", "-1"], "--examples must be at least 0, got -1"),
        ([one, two, "--criteria", "best=rsft"], "report: --criteria: expected rsft=NAME"),
        ([one, str(predictions(Path("fewer"), "HH HU"))], "the runs did not answer the same records"),
        ([one, two, "--example", "1"], "unknown option --example"),
    ):
        assert what in refused("report", *words, *FEW), words
    assert not Path("logs/report.html").exists()
    assert not [name for folder in (".", "logs", "other") for name in os.listdir(folder) if "partial" in name]


def test_a_failed_write_leaves_the_old_page(runs: list[str], refused: Callable[..., str]) -> None:
    old = '<!doctype html>\n<meta name="color-scheme" content="light dark">'
    Path("logs/report.html").write_text(old)
    refused("report", *runs, *FEW, "--rollouts", "absent")
    assert Path("logs/report.html").read_text() == old


def test_a_damaged_manifest_is_reported(runs: list[str], start: Callable[..., str]) -> None:
    Path(runs[0], "manifest.json").write_text("{")
    start("report", *runs, *FEW)
    assert "logs/predictions/rsft/manifest.json: not a manifest of guardreasoner, or damaged." in text(
        "logs/report.html"
    )


@pytest.mark.slow
def test_nothing_heavy_is_imported(runs: list[str]) -> None:
    heavy = ("torch", "tensorflow", "transformers", "lightning")
    code = (
        "import sys; from guardreasoner.cli.main import main; "
        f"code = main(sys.argv[1:]); print([name for name in {heavy} if name in sys.modules]); sys.exit(code)"
    )
    ours = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    alone = [str(predictions(Path(name), "HH UU")) for name in ("one", "two")]
    for words in (alone, runs):
        done = subprocess.run(
            [sys.executable, "-c", code, "report", *words, *FEW], capture_output=True, text=True, env=ours, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--out", "--logs", "--rollouts", "--examples", "--criteria", "--seed"))
