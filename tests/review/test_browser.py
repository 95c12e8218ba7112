"""The review page in a browser: filter, keyboard rating, drafts, undo, accessibility, hostile and long texts."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.review.ratings import RUBRIC
from tests.support.browser import DESK, PHONE, is_wider_than_the_screen, violations
from tests.support.pages import EVIL
from tests.support.review_runs import FIRST, SECOND, two_runs
from tests.support.serving import Serving

pytestmark = pytest.mark.slow

NASTY = f"{EVIL} \x1b[31mred\x1b[0m שלום \u202e </textarea></script> {'W' * 3000}"
LARGE = "All work and no play. <b>&" * 40_000
Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("review")


@pytest.fixture(scope="module")
def server(folder: Path, chromium: Any) -> Iterator[Serving]:
    argv = two_runs(folder, prompts=[NASTY, "Plain.", LARGE], texts=[NASTY, "Plain.", LARGE])
    with Serving(folder, [*argv, "--rater", "ann"]) as server:
        yield server


def ratings(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs/ratings/ann.jsonl").read_text().splitlines()]


def press(page: Any, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


def press_and_navigate(page: Any, keys: str) -> str:
    """Press keys, the last of which navigates; return the status line of the new page."""
    *first, last = keys.split()
    press(page, " ".join(first))
    with page.expect_navigation():
        page.keyboard.press(last)
    return str(page.inner_text("#status"))


def heading(page: Any) -> str:
    return str(page.inner_text("h2 >> nth=0"))


def checked(page: Any) -> dict[str, str]:
    found: dict[str, str] = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#rate :checked')].map((one) => [one.name, one.value]))"
    )
    return found


def test_rating_by_keyboard(visit: Visit, server: Serving, folder: Path) -> None:
    page = visit(server.address)
    press(page, "f")
    page.select_option("select[name=benchmark]", "home")
    page.check("text=flipped")
    press_and_navigate(page, "Enter")
    assert page.url.endswith("/?benchmark=home&flipped=1")
    assert "2 match" in page.inner_text("#filter")
    first = heading(page)

    press(page, "y y n n  y n y y Enter")
    assert list(checked(page).values()) == ["yes", "yes", "no", "no", "yes", "no", "yes", "yes"]
    assert "1 of 9 questions are open" in page.inner_text("#status")
    press(page, "w")
    page.keyboard.type("y n ? „gut“ <b>")
    press(page, "Escape t Shift+Tab x")
    assert "B.complete" not in checked(page)
    press_and_navigate(page, "n j")  # leave without saving
    assert heading(page) != first
    assert not checked(page)
    assert press_and_navigate(page, "k") == "Not saved yet."
    assert heading(page) == first
    assert (len(checked(page)), checked(page)["better"], checked(page)["B.complete"]) == (9, "tie", "no")
    page.reload()
    assert len(checked(page)) == 9
    assert press_and_navigate(page, "Enter") == f"{first} is saved."
    assert heading(page) != first
    (line,) = ratings(folder)
    assert (line["better"], line["note"], line["answers"]["A"]["true"]) == ("tie", "y n ? „gut“ <b>", False)
    assert {one["run"] for one in line["answers"].values()} == {FIRST, SECOND}

    assert press_and_navigate(page, "k") == ""
    page.reload()
    assert (len(checked(page)), page.input_value("textarea")) == (9, "y n ? „gut“ <b>")
    assert "1 of 6 rated" in page.inner_text("main")
    press_and_navigate(page, "j")
    assert "is skipped." in press_and_navigate(page, "s")
    assert "Undone" in press_and_navigate(page, "u")
    assert press_and_navigate(page, "u") == f"Undone: {first.lower()}."
    assert heading(page) == first
    assert not checked(page)
    assert "benchmark=home&flipped=1" in page.url
    assert [one["kind"] for one in ratings(folder)] == ["rating", "skip", "retraction", "retraction"]
    assert press_and_navigate(page, "u") == "There is nothing to undo."


def test_gold_labels_and_keys_are_hidden_until_requested(visit: Visit, server: Serving) -> None:
    page = visit(server.address)
    press(page, "Enter")
    assert "Nothing is rated yet" in page.inner_text("#status")
    assert not page.is_visible("#gold dl")
    assert not any(f"{benchmark}/" in page.inner_text("main") for benchmark in ("home", "away"))  # ids hint at labels
    press(page, "g")
    assert page.is_visible("#gold dl")
    press(page, "?")
    assert page.is_visible("dialog")
    press(page, "y Escape")
    assert not page.is_visible("dialog")
    assert not checked(page)
    press_and_navigate(page, "j")
    assert page.is_visible("#gold dl")  # stays open on the next record


def test_incomplete_rating_can_be_saved(visit: Visit, server: Serving, folder: Path) -> None:
    page = visit(server.address + "?at=1")
    assert press_and_navigate(page, "y Enter Enter") == "Record 1 is saved."
    marks = ratings(folder)[-1]["answers"]["A"]
    assert [marks[question.key] for question in RUBRIC] == [True, None, None, None]
    assert press_and_navigate(page, "u") == "Undone: record 1."


def test_works_without_scripts(visit: Visit, server: Serving) -> None:
    page = visit(server.address + "?at=2", java_script_enabled=False)
    page.check("input[name='B.true'][value=no]")
    page.click("text=Save and continue")
    assert page.inner_text("#status") == "Record 2 is saved."
    page.click("text=Undo")
    assert page.inner_text("#status") == "Undone: record 2."


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_accessible(visit: Visit, server: Serving, scheme: str, screen: dict[str, int]) -> None:
    number = next(n for n in range(1, 7) if "Plain." in server.get(f"?at={n}"))
    page = visit(f"{server.address}?at={number}", viewport=screen, color_scheme=scheme)
    assert violations(page) == []
    assert not is_wider_than_the_screen(page)
    press(page, "y ? ")
    assert violations(page) == []
    page = visit(f"{server.address}?benchmark=nowhere", viewport=screen, color_scheme=scheme)
    assert violations(page) == []


@pytest.mark.parametrize(
    ("text", "screen"), [(NASTY, DESK), (NASTY, PHONE), (LARGE, DESK)], ids=["desk", "phone", "1 MB"]
)
def test_hostile_and_long_texts_can_be_rated(
    visit: Visit, server: Serving, folder: Path, text: str, screen: dict[str, int]
) -> None:
    beginning = "alert" if text is NASTY else "All work"
    number = next(n for n in range(1, 7) if beginning in server.get(f"?at={n}"))
    page = visit(f"{server.address}?at={number}", viewport=screen)
    press(page, "PageDown")
    tops = page.evaluate("[...document.querySelectorAll('.answers .text')].map((one) => one.scrollTop)")
    assert min(tops) > 50
    assert page.text_content(".text >> nth=0") == text.replace("\x1b", "␛").replace("\u202e", "⟨U+202E⟩")
    assert not is_wider_than_the_screen(page)
    assert page.locator("script").count() == 1
    assert FIRST not in page.content()
    assert press_and_navigate(page, "y Enter Enter") == f"Record {number} is saved."
    assert ratings(folder)[-1]["answers"]["A"]["coherent"] is True
    assert press_and_navigate(page, "u") == f"Undone: record {number}."
