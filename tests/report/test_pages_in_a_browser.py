"""The pages of ``doctor`` and ``pairs`` in a real browser: wide and narrow, light and dark, for a screen reader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.mining import Pairing
from guardreasoner.report.page import doctor_page, mining_page
from tests.report.test_mining_page import made
from tests.report.test_page import DIAGNOSIS
from tests.support.browser import DESK, PHONE, is_wider_than_the_screen, violations
from tests.support.pages import EVIL


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {"doctor": doctor_page(DIAGNOSIS, EVIL), "mining": mining_page(made(EVIL, EVIL), Pairing(), EVIL)}


@pytest.mark.parametrize("name", ["doctor", "mining"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_everybody_can_read_it(
    visit: Callable[..., Any], pages: dict[str, str], tmp_path: Path, name: str, scheme: str, screen: dict[str, int]
) -> None:
    (tmp_path / "page.html").write_text(pages[name], encoding="utf-8")
    page = visit(tmp_path / "page.html", viewport=screen, color_scheme=scheme)
    assert violations(page) == []
    assert not is_wider_than_the_screen(page)
