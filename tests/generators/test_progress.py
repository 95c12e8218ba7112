"""Progress of a run over records."""

import io
import logging

import pytest
from rich.console import Console

from guardreasoner.generators.progress import RecordProgress, record_total


def test_a_terminal_shows_a_bar() -> None:
    screen = io.StringIO()
    progress = RecordProgress("mining", 10, Console(file=screen, force_terminal=True, width=120))
    progress.show(7, fresh=7, status="kept 5", tokens=700)
    progress.close()
    assert "7/10" in screen.getvalue()
    assert "kept 5" in screen.getvalue()
    assert "tokens/s" in screen.getvalue()


def test_without_a_terminal_a_line_is_logged_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("guardreasoner.generators.progress.time.monotonic", lambda: now[0])
    screen = io.StringIO()
    progress = RecordProgress("synthesis", 1200, Console(file=screen))
    with caplog.at_level(logging.INFO, "guardreasoner"):
        for _ in range(40):
            now[0] += 0.5
            progress.show(600, 600, "kept 500", tokens=6000)
    progress.close()
    assert screen.getvalue() == ""
    assert [record.message for record in caplog.records] == [
        "600 of 1,200: kept 500; 60.0 records/s; 600 tokens/s, 0 min left",
        "600 of 1,200: kept 500; 30.0 records/s; 300 tokens/s, 0 min left",
    ]


def test_the_total_may_be_unknown(caplog: pytest.LogCaptureFixture) -> None:
    assert record_total(object(), [1]) is None
    progress = RecordProgress("mining", None, Console(file=io.StringIO()))
    progress.show(1, fresh=0)
    progress.close()
