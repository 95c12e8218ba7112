"""All pages in a real browser: wide and narrow, light and dark, by keyboard, for a screen reader, on paper."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.evaluation.comparison.criteria import check_criteria
from guardreasoner.mining import Pairing
from guardreasoner.report.comparison_page import comparison_page
from guardreasoner.report.doctor_page import doctor_page
from guardreasoner.report.mining_page import mining_page
from tests.support.browser import DESK, PHONE, is_wider_than_the_screen, violations
from tests.support.pages import EVIL
from tests.support.report_runs import (
    DIAGNOSIS,
    NAMES,
    WORDS,
    comparison_of,
    evil_comparison,
    lay_out_chain,
    mining_findings,
    page_inputs,
    write_unknown_files,
)

pytestmark = pytest.mark.slow

PAPER = {"width": 703, "height": 1000}
"""A4 with margins of 12 mm, in CSS pixels."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of ``doctor`` and ``pairs``, and comparison pages with ordinary and with hostile names and texts."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runs = {name: [path] for name, path in lay_out_chain().items()}
        comparison = comparison_of({"rsft": WORDS["old"], "hsdpo": WORDS["new"]}, {"benchmark": "ToxicChatTest"})
        criteria = check_criteria(comparison, {"rsft": "rsft", "longer": "rsft", "hsdpo": "hsdpo"})
        evil = evil_comparison()
        texts = {
            "doctor": doctor_page(DIAGNOSIS, EVIL),
            "mining": mining_page(mining_findings(EVIL, EVIL), Pairing(), EVIL),
            "plain": comparison_page(comparison, criteria, page_inputs(runs)),
            "evil": comparison_page(evil, (), page_inputs(write_unknown_files(evil))),
        }
        for name, text in texts.items():
            Path(f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.mark.parametrize("name", ["doctor", "mining", "plain", "evil"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_page_is_accessible_and_fits_the_screen(
    visit: Callable[..., Any], pages: dict[str, Path], name: str, scheme: str, screen: dict[str, int]
) -> None:
    titles = {"doctor": "Doctor", "mining": "Mining", "plain": "hsdpo against rsft", "evil": "new "}
    page = visit(pages[name], viewport=screen, color_scheme=scheme)
    assert violations(page) == []
    assert not is_wider_than_the_screen(page)
    assert page.title().startswith(titles[name])


@pytest.mark.parametrize("name", ["plain", "evil"])
def test_nothing_is_cut_off_on_paper(visit: Callable[..., Any], pages: dict[str, Path], name: str) -> None:
    page = visit(pages[name], viewport=PAPER)
    page.emulate_media(media="print")
    assert not is_wider_than_the_screen(page)
    overflowing = (
        "all => all.filter(item => item.scrollWidth > item.clientWidth + 1).map(item => item.textContent.slice(0, 80))"
    )
    assert page.eval_on_selector_all("td, th, .wide, table, blockquote, .output, p, h3, h4", overflowing) == []
    assert page.locator(".output").first.is_visible()


def test_contents_link_to_sections_and_outputs_open_by_keyboard(
    visit: Callable[..., Any], pages: dict[str, Path]
) -> None:
    page = visit(pages["plain"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.click("nav a >> text=Flipped records")
    assert page.evaluate("location.hash") == "#flips"
    summary = page.locator("article summary").first
    output = page.locator("article .output").first
    assert not output.is_visible()
    summary.focus()
    page.keyboard.press("Enter")
    assert output.is_visible()
    assert "Answers:" in output.inner_text()


def test_texts_of_data_are_shown_and_not_run(visit: Callable[..., Any], pages: dict[str, Path]) -> None:
    page = visit(pages["evil"])
    assert "<script>alert('x')</script>" in page.locator("h1").inner_text()
    assert page.locator("img, script").count() == 0
    assert len(page.content().encode()) < 2_000_000
    assert len(NAMES) > 100
