"""The page of the service in a browser: what a person sees is what the guard says, and no fault looks like a pass."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.guard import Guard
from guardreasoner.guard.query import Query
from guardreasoner.guard.service.page import page_headers
from guardreasoner.tasks import POLICY_TASKS
from guardreasoner.workflow.guard_file import write_calibration
from tests.support.browser import DESK, is_wider_than_the_screen, violations
from tests.support.guards import calibration, known_records
from tests.support.served import served

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}
KEY = "sesame-open-0123456789"
Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def model(both_speeds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guard with both speeds that has a threshold for one task, at one speed."""
    folder = tmp_path_factory.mktemp("page") / "guard"
    shutil.copytree(both_speeds, folder)
    write_calibration(folder / "guard.json", "request", calibration("request", "reasoned", 0.75, 0.25).as_json())
    return folder


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    with served("guardreasoner", "serve", str(model), "--port", "0") as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def guard(model: Path) -> Guard:
    return Guard.load(model)


@pytest.fixture(scope="module")
def echo(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Command of a server whose guard repeats the text."""
    return "tests.support.services", str(tiny_base), str(tmp_path_factory.mktemp("echo") / "echo")


def ready(page: Any) -> Any:
    page.wait_for_selector("#speed option", state="attached")
    return page


def decision(page: Any) -> str:
    page.wait_for_selector("#verdict:not([hidden])", timeout=30_000)
    return f"{page.inner_text('#decision')} {page.inner_text('#why')}"


def cells(page: Any) -> list[list[str]]:
    """Return task, verdict, score and band of each row."""
    rows = page.locator("#rows tr").all()
    return [
        [row.locator("th").inner_text().split(" (")[0], *(cell.inner_text() for cell in row.locator("td").all())]
        for row in rows
    ]


@pytest.mark.parametrize("speed", ["reasoned", "direct", "auto"])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_page_shows_what_the_guard_says(visit: Visit, address: str, guard: Guard, speed: Any, number: int) -> None:
    record = known_records()[number]
    page = ready(visit(address))
    page.fill("#messages textarea", record.prompt)
    if record.response is not None:
        page.click("#add")
        page.fill("#messages li:nth-child(2) textarea", record.response)
    page.select_option("#speed", speed)
    page.click("#judge")
    shown, result = decision(page), guard.check(record.prompt, record.response, speed=speed)
    assert shown.startswith("⚑ Flagged") == result.flagged
    for (name, verdict, score, band), (task, answer) in zip(cells(page), result.tasks.items(), strict=True):
        assert name == task
        assert verdict == (answer.verdict or "does not apply")
        assert score.startswith("–" if answer.score is None else f"{answer.score:.4f}")
        assert (f"threshold {answer.threshold:.4f}" in score) if answer.threshold else ("threshold" not in score)
        assert answer.band is None or answer.band in band
    assert page.is_visible("#thoughts") == (result.reasoning is not None)
    assert page.text_content("#reasoning") == (result.reasoning or "")
    assert json.loads(page.text_content("#json"))["completion"] == result.completion


def test_a_score_is_a_bar_with_the_threshold_marked(visit: Visit, address: str) -> None:
    page = ready(visit(address))
    page.fill("#messages textarea", known_records()[0].prompt)
    page.select_option("#speed", "reasoned")
    page.keyboard.press("Control+Enter")
    assert decision(page).startswith("⚑ Flagged Because of request: harmful, score 0.9")
    bar, mark = page.locator(".track").first.bounding_box(), page.locator(".mark").bounding_box()
    fill = page.locator("#rows .fill").first.bounding_box()
    assert (mark["x"] - bar["x"]) / bar["width"] == pytest.approx(0.75, abs=0.03)
    assert fill["width"] / bar["width"] > 0.9
    assert page.locator(".mark").count() == 1


def test_everything_works_by_keyboard(visit: Visit, address: str, guard: Guard) -> None:
    first, second = known_records()[1].prompt, known_records()[1].response
    page = ready(visit(address))
    page.keyboard.type(first)
    page.keyboard.press("Tab")  # to "Add a message"
    assert page.evaluate("document.activeElement.id") == "add"
    page.keyboard.press("Enter")
    page.keyboard.type(second or "")
    page.keyboard.press("Control+Enter")
    assert decision(page).startswith("✓ Not flagged") != guard.check(first, second).flagged
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    page.keyboard.type(" And then?")
    assert page.is_visible("#stale")
    assert page.locator("#verdict.stale").count() == 1
    page.keyboard.press("Shift+Tab")  # Remove
    page.keyboard.press("Enter")
    assert page.locator("#messages li").count() == 1
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"


def test_a_conversation_is_pasted(visit: Visit, address: str, guard: Guard) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How do I mend train ladder 1?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "found", "tool_call_id": "a"},
        {"role": "assistant", "content": "Take the ladder."},
    ]
    page = ready(visit(address))
    page.click("#paste summary")
    page.fill("#pasted", "[{]")
    page.click("#fill")
    assert "not valid JSON" in page.inner_text("#paste-fault")
    page.fill("#pasted", json.dumps(messages))
    page.click("#fill")
    assert page.locator("#messages li").count() == 5
    assert "calls look" in page.inner_text("#messages")
    page.keyboard.press("Control+Enter")
    decision(page)
    shown = json.loads(page.text_content("#json"))
    assert shown["completion"] == guard.check(messages=messages).completion
    page.click("#paste summary")
    page.fill("#pasted", "User: How do I\nbreak it?\nAI: Not at all.")
    page.click("#fill")
    texts = page.evaluate("[...document.querySelectorAll('#messages textarea')].map((one) => one.value)")
    assert texts == ["How do I\nbreak it?", "Not at all."]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_accessible(visit: Visit, address: str, scheme: str, screen: dict[str, int]) -> None:
    page = ready(visit(address, viewport=screen, color_scheme=scheme))
    assert violations(page) == []
    page.click("#paste summary")
    page.fill("#messages textarea", known_records()[0].prompt)
    page.click("#judge")
    decision(page)
    page.click("#raw summary")
    assert violations(page) == []
    assert not is_wider_than_the_screen(page)
    page.fill("#messages textarea", "word " * 900)
    page.click("#judge")
    page.wait_for_selector("#verdict.fault")
    assert violations(page) == []
    assert not is_wider_than_the_screen(page)


def test_errors_are_in_plain_words(visit: Visit, address: str) -> None:
    page = ready(visit(address))
    page.click("#judge")
    assert page.inner_text("#status") == "Write a message first."
    page.fill("#messages textarea", "word " * 900)
    page.click("#judge")
    shown = decision(page)
    assert shown.startswith("⚑ No verdict: treat as flagged The conversation is too long for this guard:")
    assert "at most 511" in shown
    assert not page.is_visible("#tasks")


def test_texts_are_shown_and_not_run(visit: Visit, echo: tuple[str, ...]) -> None:
    evil = "<img src=x onerror=alert(1)> </script><b>break\u202e it \x1b"
    with served(*echo, "20", "8") as (_, port):
        page = ready(visit(f"http://127.0.0.1:{port}/"))
        page.fill("#messages textarea", evil)
        page.click("#judge")
        assert decision(page).startswith("⚑ Flagged")
        assert "<img src=x onerror=alert(1)>" in page.inner_text("#reasoning")
        assert "⟨U+202E⟩" in page.inner_text("#reasoning")
        assert page.locator("img, #answer b").count() == 0


def test_no_fault_looks_like_a_pass(chromium: Any, echo: tuple[str, ...]) -> None:
    with served(*echo, "0.3", "8") as (process, port):
        page = ready(_opened(chromium, f"http://127.0.0.1:{port}/"))
        page.fill("#messages textarea", "mend it")
        page.click("#judge")
        assert decision(page).startswith("✓ Not flagged")
        page.fill("#messages textarea", "pause")
        page.click("#judge")
        page.wait_for_selector("#verdict.fault")
        assert decision(page).startswith("⚑ No verdict: treat as flagged The guard did not answer in time")
        page.fill("#messages textarea", "explode")
        page.click("#judge")
        page.locator("#why", has_text="failed").wait_for(state="attached")
        assert decision(page).startswith("⚑ No verdict: treat as flagged")
        page.fill("#messages textarea", "mumble")
        page.click("#judge")
        page.locator("#why", has_text="no clear verdict").wait_for(state="attached")
        assert decision(page).startswith("⚑ Flagged")
        process.kill()
        process.wait()
        page.fill("#messages textarea", "mend it")
        page.click("#judge")
        page.locator("#why", has_text="cannot be reached").wait_for(state="attached")
        assert decision(page).startswith("⚑ No verdict: treat as flagged")
        page.context.close()


def test_a_stream_that_breaks_has_no_verdict(chromium: Any, echo: tuple[str, ...]) -> None:
    with served(*echo, "20", "8") as (process, port):
        page = ready(_opened(chromium, f"http://127.0.0.1:{port}/"))
        page.fill("#messages textarea", "pause and mend")
        page.click("#judge")
        page.locator("#status", has_text="judges").wait_for(state="attached")
        process.kill()
        assert decision(page).startswith("⚑ No verdict: treat as flagged")
        page.context.close()


def test_the_key_is_asked_for_and_kept_in_memory_alone(chromium: Any, echo: tuple[str, ...]) -> None:
    argv = ("guardreasoner", "serve", echo[1], "--port", "0")
    with served(*argv, GUARD_API_KEY=KEY) as (_, port):
        page = _opened(chromium, f"http://127.0.0.1:{port}/")
        for given in ("wrong", KEY):
            page.wait_for_selector("#unlock:not([hidden])")
            assert violations(page) == []
            page.keyboard.type(given)
            page.keyboard.press("Enter")
            if given == "wrong":
                page.locator("#key-fault", has_text="not the key").wait_for(state="attached")
        ready(page)
        assert not page.is_visible("#unlock")
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
        assert KEY not in kept + page.content()
        page.reload()
        page.wait_for_selector("#unlock:not([hidden])")
        page.context.close()


def test_a_guard_with_policies_is_given_one(chromium: Any, both_speeds: Path, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(both_speeds, folder)
    stored = json.loads((folder / "guard.json").read_text())
    stored["format"]["tasks"] = [task.as_json() for task in POLICY_TASKS]
    (folder / "guard.json").write_text(json.dumps(stored))
    guard = Guard.load(folder)
    with served("guardreasoner", "serve", str(folder), "--port", "0") as (_, port):
        page = ready(_opened(chromium, f"http://127.0.0.1:{port}/"))
        page.click("#example")
        policy = page.input_value("#policy")
        assert policy.startswith("1. ")
        page.fill("#messages textarea", "How do I mend it?")
        page.click("#judge")
        shown = decision(page)
        result = guard.check_many([Query("How do I mend it?", policy=policy)])[0]
        assert shown.startswith("⚑ Flagged") == result.flagged
        assert json.loads(page.text_content("#json"))["completion"] == result.completion
        page.fill("#policy", "")
        page.click("#judge")
        page.locator("#why", has_text="policy").wait_for(state="attached")
        assert decision(page).startswith("⚑ No verdict: treat as flagged")
        assert violations(page) == []
        page.context.close()


def test_the_page_may_load_nothing_else(address: str, visit: Visit) -> None:
    page = visit(address)
    policy = page.request.get(address).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert page_headers("<script>a</script><style>b</style>")["content-security-policy"] != policy
    assert not page.is_visible("#rules")  # this guard has no policies


def _opened(chromium: Any, address: str) -> Any:
    """Return a page whose network errors are expected."""
    page = chromium.new_context(viewport=DESK).new_page()
    page.goto(address)
    return page


def test_a_verdict_on_what_was_asked_before_a_change_is_marked(visit: Visit, echo: tuple[str, ...]) -> None:
    with served(*echo, "20", "8") as (_, port):
        page = ready(visit(f"http://127.0.0.1:{port}/"))
        page.fill("#messages textarea", "pause and mend")
        page.click("#judge")
        page.locator("#status", has_text="judges").wait_for(state="attached")
        page.fill("#messages textarea", "break it")
        assert decision(page).startswith("✓ Not flagged")
        assert page.is_visible("#stale")
        page.fill("#messages textarea", "pause and mend")
        page.click("#judge")
        page.locator("#status", has_text="judges").wait_for(state="attached")
        page.click("#clear")
        page.wait_for_selector("#stop", state="hidden")
        assert not page.is_visible("#verdict")
        assert page.inner_text("#status") == "Nothing is judged yet."
