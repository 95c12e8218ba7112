"""The page of runs: complete in one file, nothing silently left out, everything from data stays text."""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from guardreasoner.evaluation.comparison import Comparison, compare
from guardreasoner.evaluation.comparison.criteria import check
from guardreasoner.report.run_page import Asked, run_page
from guardreasoner.report.tables import Cell, Table
from guardreasoner.tasks import GUARD_TASKS
from tests.report.test_page import EVIL, Reader
from tests.support.report_runs import comparison_of, lay_out_chain, runs_of, write_events

RTL = "שלום \u202eevil\u202c عالم"
ANSI = "\x1b[31mred\x1b[0m\x9b1m\x00\x07\x7f"
HUGE = f"<b>{'x' * 1_000_000}</b>"
NAMES = f"{EVIL}{RTL}{ANSI}"
WORDS = {"old": "HU HH UU UH HU", "new": "HH HU UU UU HH"}

SECTIONS = (
    *("Figures", "F1 per class", "Confusion matrices", "Hard records", "Differences by benchmark and task"),
    *("Training curves", "Mining yield", "Criteria of the plan", "Reasoning, by rule", "Reasoning, rated by hand"),
    *("Records that flipped", "Beside the paper", "Data and lineage"),
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def asked(runs: Mapping[str, list[str]], **more: object) -> Asked:
    return Asked(runs, (), "report a b", "2026-01-02T03:04:05+00:00", 100, 0, 5, **more)  # type: ignore[arg-type]


def placed(comparison: Comparison) -> dict[str, list[str]]:
    """Return a file for each run, of which nothing says what made it."""
    for place, _ in enumerate(comparison.scores):
        Path(f"{place}.jsonl").write_text("{}\n")
    return {name: [f"{place}.jsonl"] for place, name in enumerate(comparison.scores)}


def page_of(comparison: Comparison, **more: object) -> str:
    return run_page(comparison, (), asked(placed(comparison), **more))


def text_of(page: str) -> str:
    return " ".join(Reader(page).text.split())


def evil_comparison() -> Comparison:
    texts = {
        "id": NAMES,
        "prompt": f"{NAMES}{HUGE}",
        "response": NAMES,
        "reasoning": f"{NAMES}{HUGE}",
        "benchmark": EVIL,
    }
    return comparison_of({f"old {NAMES}": WORDS["old"], f"new {NAMES}": WORDS["new"]}, texts)


@pytest.mark.parametrize("evil", [False, True], ids=["plain", "evil"])
def test_a_page_is_complete_in_one_file(evil: bool) -> None:
    page = page_of(evil_comparison() if evil else comparison_of(WORDS))
    read = Reader(page)
    assert page.startswith("<!doctype html>")
    assert all(target.startswith("#") for target in read.loads)
    assert {target[1:] for target in read.loads} <= set(read.ids)
    assert len(set(read.ids)) == len(read.ids)
    assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
    assert not read.handlers
    assert not re.search(r"@import|url\((?!#)", page)
    assert len(page.encode()) < 600_000


def test_what_comes_from_data_stays_text() -> None:
    page = page_of(evil_comparison())
    read = Reader(page)
    assert "<script" not in page
    assert EVIL in read.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    assert "␛[31mred" in read.text
    assert "⟨U+202E⟩evil" in read.text
    assert re.search(r"… 99\d,\d{3} characters are left out …", read.text)


def test_a_page_can_be_read_by_everybody() -> None:
    page = page_of(comparison_of(WORDS))
    read = Reader(page)
    assert read.tags.count("h1") == 1
    levels = [int(tag[1]) for tag in read.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert '<a class="skip" href="#content">' in page
    assert read.tags.count("table") == read.tags.count("caption")
    assert not re.search(r"<th(?![^>]*scope=)[ >]", page)
    labels = re.findall(r'role="region" aria-label="([^"]*)"', page)
    assert len(labels) == len(set(labels)) == read.tags.count("table")
    drawings = re.findall(r"<svg[^>]*>.*?</desc>", page)
    assert len(drawings) == read.tags.count("svg") == 3
    assert all('role="img"' in one and "aria-label=" in one and "<title>" in one for one in drawings)
    assert not re.search(r"#[0-9a-f]{6}\b", page[page.index("<svg") : page.rindex("</svg>")])


def test_every_part_is_there_or_said_to_be_missing() -> None:
    page = page_of(comparison_of(WORDS, hard=False))
    assert tuple(re.findall(r'<h2 id="[\w-]+">([^<]*)</h2>', page)) == ("Contents", *SECTIONS)
    text = text_of(page)
    for words in (
        "Not all runs have outputs on hard records",
        "Nothing says which fits made these runs, so there are no curves; --logs DIR names some.",
        "Nothing says which rollouts these runs were trained on; --rollouts PATH names some.",
        "Not checked: the runs are not called as in the demo; --criteria rsft=NAME longer=NAME hsdpo=NAME",
        "No ratings by hand were given",
        "None of these benchmarks is among those that the paper prints.",
        "0.jsonl: no manifest found.",
    ):
        assert words in text, words


def test_the_numbers_are_those_of_the_comparison() -> None:
    comparison = comparison_of(WORDS)
    text = text_of(run_page(comparison, check(comparison, {"rsft": "old", "hsdpo": "new"}), asked(placed(comparison))))
    for words in (
        *("These data do not decide whether new is better than old.", "Criteria of the two-stage plan: 0 met"),
        *("80.0 % of 5 records, against 40.0 %: +40.0 points", "R-SFT: accuracy above 55 % not"),
        *("old (first) and new (second)", "Answers by gold label: request", "Hard records: differences in points"),
        *("old to new: gained 3 records, 3 of them here.", "old to new: lost 1 record, 1 of them here."),
        *("Gold label: request: harmful", "old: request: unharmful wrong", "new: request: harmful right"),
        "Made with: python -m guardreasoner report a b",
    ):
        assert words in text, words


def test_ratings_have_their_place() -> None:
    table = Table("Ratings", ("run", "coherent"), [[Cell("old"), Cell("3.5", "3.1–3.9")]])
    text = text_of(page_of(comparison_of(WORDS), ratings=[table], rating_notes=["Of 5."]))
    assert "Reasoning, rated by hand Ratings run coherent old 3.53.1–3.9 Of 5." in text
    assert "No ratings by hand" not in text


def test_what_was_trained_on_benchmarks_or_not_compared_stands_at_the_top() -> None:
    runs = runs_of({"old": "HH HU", "new": "HH HU UU"})
    comparison = compare(runs, GUARD_TASKS, intersect=True, resamples=10)
    said = replace(asked(placed(comparison)), remarks=["old was made with --allow_contamination: <b>"])
    page = run_page(comparison, (), said)
    assert '<p class="fault-word" dir="auto">Note: old was made with --allow_contamination: &lt;b&gt;</p>' in page
    assert "Note: Not compared, since not all have them: records of new 1. Contents" in text_of(page)


def test_the_paper_stands_beside_its_benchmarks() -> None:
    text = text_of(page_of(comparison_of(WORDS, {"benchmark": "ToxicChatTest"})))
    assert "72.43" in text
    assert "arXiv 2501.18492v2, tables 2, 5 and 8" in text


def test_the_chain_is_followed_to_curves_rollouts_and_sources() -> None:
    runs = {name: [path] for name, path in lay_out_chain().items()}
    text = text_of(run_page(comparison_of({"rsft": WORDS["old"], "hsdpo": WORDS["new"]}), (), asked(runs)))
    for words in (
        *("checkpoints/rsft (rsft)", "checkpoints/hsdpo (hsdpo)", "Values of the curves: checkpoints/hsdpo (hsdpo)"),
        *("2 hard records of 4, 2 pairs, from 8 outputs of m.", "Options: γ 0.25, models pooled"),
        *("Pairs by weight", "Groups by the number of right outputs", "By weight: "),
        *("seed_everything 3", "└── rows.jsonl unchanged file without a manifest", "Versions: python 3."),
    ):
        assert words in text, words


def test_changed_and_missing_files_are_said() -> None:
    runs = {name: [path] for name, path in lay_out_chain().items()}
    Path("logs/rollouts/rsft").rename("gone")
    Path("logs/fit/rsft").rename("gone-too")
    text = text_of(run_page(comparison_of({"rsft": WORDS["old"], "hsdpo": WORDS["new"]}), (), asked(runs)))
    assert "checkpoints/hsdpo: the rollouts logs/rollouts/rsft are missing." in text
    assert "Changed or missing since: logs/rollouts/rsft (missing)." in text
    assert "No event files are left of checkpoints/rsft; --logs DIR names others." in text


def test_many_folders_of_curves_are_counted() -> None:
    for number in range(10):
        write_events(Path(f"logs/fit/v{number}"), {"train/loss": [1, 2]})
    write_events(Path("logs/test"), {"test/accuracy": [1]})
    text = text_of(page_of(comparison_of(WORDS), logs=[Path("logs")]))
    assert "Without curves of training: 1 of 11 folders." in text
    assert "Not shown: 2 of 10 fits" in text
    assert text.count("Values of the curves: logs/fit/v") == 8
