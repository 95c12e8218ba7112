"""Control and direction characters are shown, in texts, in one line, and in what reaches the terminal."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from guardreasoner.workflow.terminal import show_line, stdout_console
from guardreasoner.workflow.visible_text import visible_line, visible_text

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \x00\x7f \u202eexe.txt\u2066 \ud800"
NOT_VISIBLE = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


def test_control_characters_are_shown() -> None:
    assert visible_text(HOSTILE) == "␛[31mred␛]0;title␇ �2J ␀␡ ⟨U+202E⟩exe.txt⟨U+2066⟩ �"
    assert visible_text("a\r\nb\n\tc") == "a\nb\n\tc"
    assert visible_line("a\r\nb\tc") == "a␍␊b␉c"
    assert visible_line("plain, Ünïcödé, שלום, 你好, 👍") == "plain, Ünïcödé, שלום, 你好, 👍"


@given(st.text(st.characters()))
def test_no_such_character_is_left(text: str) -> None:
    assert not re.search(NOT_VISIBLE, visible_text(text))
    assert len(visible_line(text).splitlines()) <= 1


def test_the_terminal_gets_none(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-canary-0123456789"
    monkeypatch.setenv("SOME_API_KEY", key)
    table = Table("name", title=HOSTILE)
    table.add_row(f"{HOSTILE} {key}")
    console = stdout_console(100)
    console.print(table)
    console.print(f"{HOSTILE} {key}", style="bold", markup=False)
    show_line(f"{HOSTILE} {key}")
    shown = capsys.readouterr().out
    assert not re.search(NOT_VISIBLE, shown)
    assert key not in shown
    assert shown.count("␛[31mred") == 4


def test_styles_still_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stdout_console(80).print("[bold]a[/bold]\x1b[31m", highlight=False)
    assert "\x1b[1ma\x1b[0m␛[31m" in terminal.getvalue()
