"""The page of runs in a real browser: wide and narrow, light and dark, by keyboard, for a screen reader, on paper."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.evaluation.comparison.criteria import check_criteria
from guardreasoner.report.run_page import run_page
from tests.report.test_run_page import NAMES, WORDS, asked, evil_comparison, placed
from tests.support.browser import DESK, PHONE, is_wider_than_the_screen, violations
from tests.support.report_runs import comparison_of, lay_out_chain

PAPER = {"width": 703, "height": 1000}
"""A4 with margins of 12 mm, in the pixels of CSS."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of a whole chain, and one of names and texts that would break it if they could."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runs = {name: [path] for name, path in lay_out_chain().items()}
        comparison = comparison_of({"rsft": WORDS["old"], "hsdpo": WORDS["new"]}, {"benchmark": "ToxicChatTest"})
        criteria = check_criteria(comparison, {"rsft": "rsft", "longer": "rsft", "hsdpo": "hsdpo"})
        Path("plain.html").write_text(run_page(comparison, criteria, asked(runs)), encoding="utf-8")
        evil = evil_comparison()
        Path("evil.html").write_text(run_page(evil, (), asked(placed(evil))), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in ("plain", "evil")}


@pytest.mark.parametrize("name", ["plain", "evil"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_everybody_can_read_it(
    visit: Callable[..., Any], pages: dict[str, Path], name: str, scheme: str, screen: dict[str, int]
) -> None:
    page = visit(pages[name], viewport=screen, color_scheme=scheme)
    assert violations(page) == []
    assert not is_wider_than_the_screen(page)
    assert page.title().startswith("hsdpo against rsft" if name == "plain" else "new ")


@pytest.mark.parametrize("name", ["plain", "evil"])
def test_on_paper_nothing_is_cut(visit: Callable[..., Any], pages: dict[str, Path], name: str) -> None:
    page = visit(pages[name], viewport=PAPER)
    page.emulate_media(media="print")
    assert not is_wider_than_the_screen(page)
    wide = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.textContent.slice(0, 80))"
    assert page.eval_on_selector_all("td, th, .wide, table, blockquote, .output, p, h3, h4", wide) == []
    assert page.locator(".output").first.is_visible()


def test_the_contents_lead_to_sections_and_reasoning_opens_by_keyboard(
    visit: Callable[..., Any], pages: dict[str, Path]
) -> None:
    page = visit(pages["plain"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.click("nav a >> text=Records that flipped")
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
