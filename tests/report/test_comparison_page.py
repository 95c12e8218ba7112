"""The page that compares runs: self-contained, complete, and safe for any text."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from guardreasoner.evaluation.comparison import Comparison, compare
from guardreasoner.evaluation.comparison.criteria import check_criteria
from guardreasoner.report.comparison_page import comparison_page
from guardreasoner.report.table import Cell, Table
from guardreasoner.tasks import GUARD_TASKS
from tests.support.pages import EVIL, Reader
from tests.support.report_runs import (
    WORDS,
    comparison_of,
    evil_comparison,
    lay_out_chain,
    page_inputs,
    runs_of,
    write_events,
    write_unknown_files,
)

SECTIONS = (
    *("Scores", "F1 per class", "Confusion matrices", "Scores as probabilities", "Hard records"),
    *("Differences by benchmark and task", "Training curves", "Mining results", "Criteria of the plan"),
    *("Reasoning quality by rules", "Human ratings of the reasoning", "Flipped records", "Comparison with the paper"),
    "Data and lineage",
)


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def page_of(comparison: Comparison, **more: object) -> str:
    return comparison_page(comparison, (), page_inputs(write_unknown_files(comparison), **more))


def text_of(page: str) -> str:
    return " ".join(Reader(page).text.split())


@pytest.mark.parametrize("evil", [False, True], ids=["plain", "evil"])
def test_page_is_self_contained(evil: bool) -> None:
    page = page_of(evil_comparison() if evil else comparison_of(WORDS))
    parsed = Reader(page)
    assert page.startswith("<!doctype html>")
    assert all(target.startswith("#") for target in parsed.loads)
    assert {target[1:] for target in parsed.loads} <= set(parsed.ids)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    assert not parsed.handlers
    assert not re.search(r"@import|url\((?!#)", page)
    assert len(page.encode()) < 600_000


def test_data_are_escaped_and_control_characters_made_visible() -> None:
    page = page_of(evil_comparison())
    parsed = Reader(page)
    assert "<script" not in page
    assert EVIL in parsed.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    assert "␛[31mred" in parsed.text
    assert "⟨U+202E⟩evil" in parsed.text
    assert re.search(r"… 99\d,\d{3} characters left out …", parsed.text)


def test_page_is_accessible() -> None:
    page = page_of(comparison_of(WORDS))
    parsed = Reader(page)
    assert parsed.tags.count("h1") == 1
    levels = [int(tag[1]) for tag in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert '<a class="skip" href="#content">' in page
    assert parsed.tags.count("table") == parsed.tags.count("caption")
    assert not re.search(r"<th(?![^>]*scope=)[ >]", page)
    labels = re.findall(r'role="region" aria-label="([^"]*)"', page)
    assert len(labels) == len(set(labels)) == parsed.tags.count("table")
    plots = re.findall(r"<svg[^>]*>.*?</desc>", page)
    assert len(plots) == parsed.tags.count("svg") == 3
    assert all('role="img"' in plot and "aria-label=" in plot and "<title>" in plot for plot in plots)
    assert not re.search(r"#[0-9a-f]{6}\b", page[page.index("<svg") : page.rindex("</svg>")])


def test_sections_without_data_say_what_is_missing() -> None:
    page = page_of(comparison_of(WORDS, hard=False))
    assert tuple(re.findall(r'<h2 id="[\w-]+">([^<]*)</h2>', page)) == ("Contents", *SECTIONS)
    text = text_of(page)
    for expected in (
        "Not all runs have outputs on hard records",
        "No run has probabilities of labels in its predictions.",
        "No curves: the manifests name no fit of these runs; give event files with --logs DIR.",
        "No mining: the manifests name no rollouts of these runs; give some with --rollouts PATH.",
        "Not checked: assign runs to roles with --criteria rsft=NAME longer=NAME hsdpo=NAME.",
        "No human ratings given",
        "The paper has no scores for these benchmarks.",
        "0.jsonl: no manifest found.",
    ):
        assert expected in text, expected


def test_page_shows_the_numbers_of_the_comparison() -> None:
    comparison = comparison_of(WORDS)
    criteria = check_criteria(comparison, {"rsft": "old", "hsdpo": "new"})
    text = text_of(comparison_page(comparison, criteria, page_inputs(write_unknown_files(comparison))))
    for expected in (
        *("No significant difference between new and old.", "Criteria of the two-stage plan: 0 met"),
        *("80.0 % of 5 records, against 40.0 %: +40.0 points", "R-SFT: accuracy above 55 % not"),
        *("old (first) and new (second)", "Answers by gold label: request", "Hard records: differences in points"),
        *("old to new: gained 3 records, 3 shown.", "old to new: lost 1 record, 1 shown."),
        *("Gold label: request: harmful", "old: request: unharmful wrong", "new: request: harmful right"),
        "Made with: python -m guardreasoner report a b",
    ):
        assert expected in text, expected


def test_ratings_are_shown() -> None:
    table = Table("Ratings", ("run", "coherent"), [[Cell("old"), Cell("3.5", "3.1–3.9")]])
    text = text_of(page_of(comparison_of(WORDS), ratings=[table], rating_notes=["Of 5."]))
    assert "Human ratings of the reasoning Ratings run coherent old 3.53.1–3.9 Of 5." in text
    assert "No human ratings" not in text


def test_remarks_and_left_out_records_stand_at_the_top() -> None:
    runs = runs_of({"old": "HH HU", "new": "HH HU UU"})
    comparison = compare(runs, GUARD_TASKS, intersect=True, resamples=10)
    remarks = ["old was made with --allow_contamination: <b>"]
    inputs = replace(page_inputs(write_unknown_files(comparison)), remarks=remarks)
    page = comparison_page(comparison, (), inputs)
    assert '<p class="fault-word" dir="auto">Note: old was made with --allow_contamination: &lt;b&gt;</p>' in page
    assert "Note: Left out because some runs lack them: records of new 1. Contents" in text_of(page)


def test_published_scores_are_shown_for_the_papers_benchmarks() -> None:
    text = text_of(page_of(comparison_of(WORDS, {"benchmark": "ToxicChatTest"})))
    assert "72.43" in text
    assert "arXiv 2501.18492v2, tables 2, 5 and 8" in text


def test_lineage_leads_to_curves_rollouts_and_sources() -> None:
    runs = {name: [path] for name, path in lay_out_chain().items()}
    comparison = comparison_of({"rsft": WORDS["old"], "hsdpo": WORDS["new"]})
    text = text_of(comparison_page(comparison, (), page_inputs(runs)))
    for expected in (
        *("checkpoints/rsft (rsft)", "checkpoints/hsdpo (hsdpo)", "Values of the curves: checkpoints/hsdpo (hsdpo)"),
        *("2 hard records of 4, 2 pairs, from 8 outputs of m.", "Options: γ 0.25, models pooled"),
        *("Pairs by weight", "Groups by the number of right outputs", "By weight: "),
        *("seed_everything 3", "└── rows.jsonl unchanged file without a manifest", "Versions: python 3."),
    ):
        assert expected in text, expected


def test_changed_and_missing_files_are_reported() -> None:
    runs = {name: [path] for name, path in lay_out_chain().items()}
    Path("logs/rollouts/rsft").rename("gone")
    Path("logs/fit/rsft").rename("gone-too")
    comparison = comparison_of({"rsft": WORDS["old"], "hsdpo": WORDS["new"]})
    text = text_of(comparison_page(comparison, (), page_inputs(runs)))
    assert "checkpoints/hsdpo: rollouts logs/rollouts/rsft: missing." in text
    assert "Changed or missing: logs/rollouts/rsft (missing)." in text
    assert "No event files found for checkpoints/rsft; give others with --logs DIR." in text


def test_only_the_last_eight_folders_of_curves_are_shown() -> None:
    for number in range(10):
        write_events(Path(f"logs/fit/v{number}"), {"train/loss": [1, 2]})
    write_events(Path("logs/test"), {"test/accuracy": [1]})
    text = text_of(page_of(comparison_of(WORDS), logs=[Path("logs")]))
    assert "Without training curves: 1 of 11 folders." in text
    assert "Not shown: the 2 oldest of 10 fits." in text
    assert text.count("Values of the curves: logs/fit/v") == 8


def test_the_oldest_of_several_folders_are_left_out() -> None:
    for number, name in enumerate(["old"] * 8 + ["new"] * 3):
        folder = write_events(Path(f"logs/{name}/v{number}"), {"train/loss": [1, 2]})
        (file,) = folder.glob("events*")
        file.rename(folder / f"events.out.tfevents.{1000 + number}.host.1.0")
    text = text_of(page_of(comparison_of(WORDS), logs=[Path("logs/new"), Path("logs/old")]))
    assert text.count("Values of the curves: logs/new/v") == 3
