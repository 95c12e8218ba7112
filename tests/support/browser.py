"""Fixtures and checks for pages in a real browser: headless Chromium, driven by Playwright."""

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
    """Return the path of Chromium, or None; on Debian, of the program that its start script runs."""
    debian = "/usr/lib/chromium/chromium"
    names = (os.environ.get("CHROMIUM"), debian, "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for the tests of one module; a longer scope would block the event loops of other tests."""
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
    """Return a function that opens a page: ``visit(path_or_address, **browser_context_options)``.

    The test fails if a page throws or logs an error, or requests anything from another machine.
    """
    contexts: list[Any] = []
    faults: list[str] = []

    def open_page(address: str | Path, **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"thrown: {error}"))
        page.on(
            "console", lambda message: faults.append(f"logged: {message.text}") if message.type == "error" else None
        )
        page.on(
            "request", lambda request: faults.append(f"requested: {request.url}") if _is_remote(request.url) else None
        )
        page.goto(address.resolve().as_uri() if isinstance(address, Path) else address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def violations(page: Any) -> list[str]:
    """Return the accessibility violations that axe (https://github.com/dequelabs/axe-core) finds."""
    from axe_playwright_python.sync_playwright import Axe

    results = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {rule['help']}: {node['html'][:200]}" for rule in results for node in rule["nodes"]]


def is_wider_than_the_screen(page: Any) -> bool:
    """Return whether the page scrolls horizontally."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return wide


def _is_remote(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme not in ("file", "data", "blob", "about") and parts.hostname not in ("127.0.0.1", "localhost")
