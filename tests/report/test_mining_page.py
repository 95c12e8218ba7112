"""The page of what mining found: complete in itself, and what comes from data stays text."""

import re
from dataclasses import replace

import pytest

from guardreasoner.mining import Pairing, mine
from guardreasoner.mining.findings import Findings, SamplingCost, findings
from guardreasoner.report.page import mining_page
from guardreasoner.tasks import GUARD_TASKS
from tests.support.pages import EVIL, Reader
from tests.support.scripted import R, U, W, make_outputs, make_record


def made(source: str, model: str) -> Findings:
    records = [make_record(str(number), f"{source}{number}") for number in range(30)]
    rollouts = [o for record in records for one in (model, "n") for o in make_outputs(record.id, [R, R, W, U], one)]
    return findings(mine(records, rollouts, GUARD_TASKS, Pairing()), [SamplingCost("GPU", 60.0, 1200, 240, 2, 2)])


@pytest.mark.parametrize(("source", "model"), [("s", "m"), (EVIL, EVIL)])
def test_a_page_is_complete_and_escapes(source: str, model: str) -> None:
    page = mining_page(made(source, model), Pairing(sources_by_model={model: [source]}), f"pairs {source}")
    read = Reader(page)
    assert page.startswith("<!doctype html>")
    assert all(target.startswith("#") for target in read.loads)
    assert {target[1:] for target in read.loads} <= set(read.ids)
    assert len(set(read.ids)) == len(read.ids)
    assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
    assert not read.handlers
    assert source in read.text
    assert "<script" not in page
    assert read.tags.count("table") == read.tags.count("caption")
    drawings = re.findall(r"<svg[^>]*>.*?</title>", page)
    assert len(drawings) == 5
    assert all('role="img"' in one and "aria-label=" in one and "<title>" in one for one in drawings)
    assert not re.search(r"#[0-9a-f]{6}\b", page[page.index("<svg") : page.rindex("</svg>")])


def test_a_page_says_what_was_found() -> None:
    text = " ".join(Reader(mining_page(made("s", "m"), Pairing(), "pairs --rollouts a")).text.split())
    for words in (
        *("30 hard records of 30, 30 pairs.", "240 outputs of m, n.", "python -m guardreasoner pairs --rollouts a"),
        *("2 of 2", "60.0", "1,200", "20.0", "2.00", "1.000", "–"),
    ):
        assert words in text, words


def test_nothing_found_is_a_page_all_the_same() -> None:
    empty = replace(made("s", "m"), counts={}, outcomes=(), votes=(), weights=((1.0, 0),), growth=(), agreement=())
    read = Reader(mining_page(replace(empty, cost=(), models=()), Pairing(), "pairs"))
    assert "svg" not in read.tags
    assert "0 hard records" in read.text
