"""Pages in a real browser: Debian's Chromium without a window, driven by Playwright."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

MISSING = "no Chromium is installed (apt-get install chromium, or set CHROMIUM to its path)"
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1200, "height": 900}


def chromium_path() -> str | None:
    """Return where Chromium is, or None; of Debian's, the program behind its start script."""
    debian = "/usr/lib/chromium/chromium"
    names = (os.environ.get("CHROMIUM"), debian, "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for the tests of one file: beyond them, its event loop would stand in the way of others'."""
    sync = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install -e '.[dev]')")
    path = chromium_path()
    if path is None:
        pytest.skip(MISSING)
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.getuid() != 0)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Return what opens a page, as ``visit(path_or_address, **options of a browser context)``.

    At the end of the test: no error was thrown or logged on any page, and no request went off this machine.
    """
    contexts: list[Any] = []
    faults: list[str] = []

    def open_page(address: str | Path, **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"thrown: {error}"))
        page.on("console", lambda said: faults.append(f"logged: {said.text}") if said.type == "error" else None)
        page.on("request", lambda asked: faults.append(f"asked: {asked.url}") if _is_outside(asked.url) else None)
        page.goto(address.resolve().as_uri() if isinstance(address, Path) else address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def violations(page: Any) -> list[str]:
    """Return what axe (https://github.com/dequelabs/axe-core) finds wrong for those who do not see or use a mouse."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def is_wider_than_the_screen(page: Any) -> bool:
    """Return whether one has to scroll sideways."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return wide


def _is_outside(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme not in ("file", "data", "blob", "about") and parts.hostname not in ("127.0.0.1", "localhost")
