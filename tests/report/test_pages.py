"""The pages of ``doctor`` and ``pairs``: self-contained, accessible, and safe for any text."""

import re
from dataclasses import replace

import pytest

from guardreasoner.diagnosis import Balance, Diagnosis, Finding
from guardreasoner.mining import Pairing
from guardreasoner.report.doctor_page import doctor_page
from guardreasoner.report.mining_page import mining_page
from tests.support.pages import EVIL, Reader
from tests.support.report_runs import DIAGNOSIS, mining_findings


@pytest.fixture(scope="module")
def evil_diagnosis() -> Diagnosis:
    finding = Finding(EVIL, "fault", 1, 2, EVIL, (EVIL,))
    balance = tuple(Balance(f"{EVIL}{n}", "request", {EVIL: n, "b": 1}, 0) for n in range(40))
    return replace(DIAGNOSIS, asked=EVIL, findings=(finding,), balance=balance)


def assert_self_contained(page: str) -> Reader:
    """Check that a page loads nothing and has valid ids; return the parsed page."""
    parsed = Reader(page)
    assert page.startswith("<!doctype html>")
    assert all(target.startswith("#") for target in parsed.loads)
    assert {target[1:] for target in parsed.loads} <= set(parsed.ids)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert not {"script", "link", "img", "iframe", "object"} & set(parsed.tags)
    return parsed


def assert_accessible_plots(page: str, count: int) -> None:
    """Check that a page has so many plots, each with a title for screen readers."""
    plots = re.findall(r"<svg[^>]*>.*?</title>", page)
    assert len(plots) == count
    assert all('role="img"' in plot and "aria-label=" in plot and "<title>" in plot for plot in plots)


def test_doctor_page_shows_the_findings() -> None:
    parsed = Reader(doctor_page(DIAGNOSIS, "doctor --config a.yaml", ["1 of 2 records left out"]))
    text = " ".join(parsed.text.split())
    for expected in (
        *("1 fault found", "1,234 training and 56 validation", "python -m guardreasoner doctor"),
        *("3 of 1,290", "a/1, a/2, a/3", "1 other check passed.", "1 of 2 records left out"),
        *("harmful 700, unharmful 500", "limit 512"),
    ):
        assert expected.casefold() in text.casefold(), expected


def test_doctor_page_is_self_contained(evil_diagnosis: Diagnosis) -> None:
    for diagnosis in (DIAGNOSIS, evil_diagnosis):
        page = doctor_page(diagnosis, "doctor")
        assert_self_contained(page)
        assert not re.search(r"@import|url\((?!#)", page)
        assert len(page.encode()) < 300_000
    assert "http" not in doctor_page(DIAGNOSIS, "doctor")


def test_doctor_page_escapes_data(evil_diagnosis: Diagnosis) -> None:
    page = doctor_page(evil_diagnosis, EVIL, [EVIL])
    parsed = Reader(page)
    assert not parsed.handlers
    assert EVIL in parsed.text
    assert "<script" not in page
    assert "20 other sources" in parsed.text


def test_doctor_page_is_accessible() -> None:
    page = doctor_page(DIAGNOSIS, "doctor")
    parsed = Reader(page)
    assert '<html lang="en">' in page
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert '<a class="skip" href="#content">' in page
    assert parsed.tags.count("h1") == 1
    assert parsed.tags.count("table") == parsed.tags.count("caption")
    assert not re.search(r"<th(?![^>]*scope=)[ >]", page)
    assert_accessible_plots(page, 3)


def test_theme_colours_have_enough_contrast() -> None:
    page = doctor_page(DIAGNOSIS, "doctor")
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    themes = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    light, dark = (dict(re.findall(r"(--[\w-]+): (#\w{6})", theme)) for theme in themes[:2])
    assert used <= set(light)
    assert set(light) == set(dark)
    # WCAG 2.2: 4.5 for text, 3 for graphics
    for theme in (light, dark):
        for name, colour in theme.items():
            minimum = 3.0 if name.startswith("--series") else 4.5
            if name not in ("--page", "--panel", "--line"):
                backgrounds = (theme["--page"], theme["--panel"])
                assert all(contrast(colour, background) >= minimum for background in backgrounds), name
    assert not re.search(r"#[0-9a-f]{6}\b", page[page.index("<svg") :])


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2, 1.4.3)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_doctor_page_without_data() -> None:
    empty = replace(DIAGNOSIS, lengths=(), histogram=None, balance=(), findings=DIAGNOSIS.findings[2:])
    parsed = Reader(doctor_page(empty, "doctor"))
    assert "svg" not in parsed.tags
    assert "No faults found" in parsed.text


@pytest.mark.parametrize(("source", "model"), [("s", "m"), (EVIL, EVIL)], ids=["plain", "evil"])
def test_mining_page_is_self_contained_and_escapes_data(source: str, model: str) -> None:
    pairing = Pairing(sources_by_model={model: [source]})
    page = mining_page(mining_findings(source, model), pairing, f"pairs {source}")
    parsed = assert_self_contained(page)
    assert not parsed.handlers
    assert source in parsed.text
    assert "<script" not in page
    assert parsed.tags.count("table") == parsed.tags.count("caption")
    assert_accessible_plots(page, 5)
    assert not re.search(r"#[0-9a-f]{6}\b", page[page.index("<svg") : page.rindex("</svg>")])


def test_mining_page_shows_the_results() -> None:
    page = mining_page(mining_findings("s", "m"), Pairing(), "pairs --rollouts a")
    text = " ".join(Reader(page).text.split())
    for expected in (
        *("30 hard records of 30, 30 pairs.", "240 outputs of m, n.", "python -m guardreasoner pairs --rollouts a"),
        *("2 of 2", "60.0", "1,200", "20.0", "2.00", "1.000", "–"),
    ):
        assert expected in text, expected


def test_mining_page_without_hard_records() -> None:
    findings = mining_findings("s", "m")
    empty = replace(findings, counts={}, outcomes=(), votes=(), weights=((1.0, 0),), growth=(), agreement=())
    parsed = Reader(mining_page(replace(empty, cost=(), models=()), Pairing(), "pairs"))
    assert "svg" not in parsed.tags
    assert "0 hard records" in parsed.text
