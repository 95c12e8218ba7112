"""How a run over records shows how far it is."""

import io
import logging

import pytest
from rich.console import Console

from guardreasoner.modules.progress import RecordProgress, total_of


def test_a_terminal_gets_a_bar() -> None:
    screen = io.StringIO()
    progress = RecordProgress(10, Console(file=screen, force_terminal=True, width=120))
    progress.show(kept=5, refused=1, failed=1, fresh=7)
    progress.close()
    assert "7/10" in screen.getvalue()
    assert "kept 5, refused 1, failed 1" in screen.getvalue()


def test_elsewhere_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("guardreasoner.modules.progress.time.monotonic", lambda: now[0])
    screen = io.StringIO()
    progress = RecordProgress(1200, Console(file=screen))
    with caplog.at_level(logging.INFO, "guardreasoner"):
        for _ in range(40):
            now[0] += 0.5
            progress.show(kept=500, refused=80, failed=20, fresh=600)
    progress.close()
    assert screen.getvalue() == ""
    assert [record.message for record in caplog.records] == [
        "600 of 1,200: kept 500, refused 80, failed 20; 60.0 records/s, 0 min left",
        "600 of 1,200: kept 500, refused 80, failed 20; 30.0 records/s, 0 min left",
    ]


def test_a_total_may_be_unknown(caplog: pytest.LogCaptureFixture) -> None:
    assert total_of(object()) is None
    progress = RecordProgress(None, Console(file=io.StringIO()))
    progress.show(1, 0, 0, fresh=0)
    progress.close()
