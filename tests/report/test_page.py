"""Pages are complete in themselves, escape what comes from data, and follow the reader into the dark."""

import re
from dataclasses import replace

import pytest

from guardreasoner.diagnosis import Balance, Diagnosis, Finding, Histogram, Lengths
from guardreasoner.report.page import doctor_page
from tests.support.pages import EVIL, Reader

TOTALS = [100, 120, 180, 250, 900]
DIAGNOSIS = Diagnosis(
    asked="raw text, no chat template (guard.json of checkpoints/base)",
    limit=512,
    train=1234,
    validation=56,
    lengths=(Lengths.of("prompt", [20, 30, 90, 100, 400]), Lengths.of("completion", [80, 90, 90, 150, 500])),
    histogram=Histogram.of(TOTALS, 512),
    balance=(Balance("ours", "request", {"harmful": 700, "unharmful": 500}, 34),),
    findings=(
        Finding("too long", "fault", 3, 1290, "the run would refuse to start", ("a/1", "a/2", "a/3")),
        Finding("duplicate", "warning", 1, 1290, "it counts double", ("a/9",)),
        Finding("EOS missing", "ok", 0, 1290, "no end token"),
    ),
)


@pytest.fixture(scope="module")
def evil() -> Diagnosis:
    finding = Finding(EVIL, "fault", 1, 2, EVIL, (EVIL,))
    many = tuple(Balance(f"{EVIL}{n}", "request", {EVIL: n, "b": 1}, 0) for n in range(40))
    return replace(DIAGNOSIS, asked=EVIL, findings=(finding,), balance=many)


def test_a_page_says_what_was_found() -> None:
    read = Reader(doctor_page(DIAGNOSIS, "doctor --config a.yaml", ["1 of 2 records left out"]))
    text = " ".join(read.text.split())
    for words in (
        *("1 fault would spoil this run", "1,234 training and 56 validation", "python -m guardreasoner doctor"),
        *("3 of 1,290", "a/1, a/2, a/3", "Looked for and not found: EOS missing.", "1 of 2 records left out"),
        *("harmful 700, unharmful 500", "limit 512"),
    ):
        assert words.casefold() in text.casefold(), words


def test_a_page_is_complete_in_one_file(evil: Diagnosis) -> None:
    for diagnosis in (DIAGNOSIS, evil):
        page = doctor_page(diagnosis, "doctor")
        read = Reader(page)
        assert page.startswith("<!doctype html>")
        assert all(target.startswith("#") for target in read.loads)
        assert {target[1:] for target in read.loads} <= set(read.ids)
        assert len(set(read.ids)) == len(read.ids)
        assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
        assert not re.search(r"@import|url\((?!#)", page)
        assert len(page.encode()) < 300_000
    assert "http" not in doctor_page(DIAGNOSIS, "doctor")


def test_what_comes_from_data_stays_text(evil: Diagnosis) -> None:
    page = doctor_page(evil, EVIL, [EVIL])
    read = Reader(page)
    assert not read.handlers
    assert EVIL in read.text
    assert "<script" not in page
    assert "20 other sources" in read.text


def test_a_page_can_be_read_by_everybody() -> None:
    page = doctor_page(DIAGNOSIS, "doctor")
    read = Reader(page)
    assert '<html lang="en">' in page
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert '<a class="skip" href="#content">' in page
    assert read.tags.count("h1") == 1
    assert read.tags.count("table") == read.tags.count("caption")
    assert not re.search(r"<th(?![^>]*scope=)[ >]", page)
    drawings = re.findall(r"<svg[^>]*>.*?</title>", page)
    assert len(drawings) == 3
    assert all('role="img"' in one and "aria-label=" in one and "<title>" in one for one in drawings)


def test_colours_are_the_pages_and_stand_out() -> None:
    page = doctor_page(DIAGNOSIS, "doctor")
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    themes = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    light, dark = (dict(re.findall(r"(--[\w-]+): (#\w{6})", theme)) for theme in themes[:2])
    assert used <= set(light)
    assert set(light) == set(dark)
    # WCAG 2.2: 4.5 for text, 3 for what is drawn
    for theme in (light, dark):
        for name, colour in theme.items():
            wanted = 3.0 if name.startswith("--series") else 4.5
            if name not in ("--page", "--panel", "--line"):
                assert all(contrast(colour, theme[ground]) >= wanted for ground in ("--page", "--panel")), name
    svg = page[page.index("<svg") :]
    assert not re.search(r"#[0-9a-f]{6}\b", svg)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2, 1.4.3)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dim, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dim + 0.05)


def test_nothing_to_draw_is_a_page_all_the_same() -> None:
    empty = replace(DIAGNOSIS, lengths=(), histogram=None, balance=(), findings=DIAGNOSIS.findings[2:])
    read = Reader(doctor_page(empty, "doctor"))
    assert "svg" not in read.tags
    assert "Nothing would spoil this run" in read.text
