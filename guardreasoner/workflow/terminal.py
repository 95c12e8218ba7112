"""What is shown in the terminal: no secrets, and no characters that control the terminal."""

import sys
import traceback
from types import TracebackType
from typing import TYPE_CHECKING

from guardreasoner.workflow.redaction import redacted
from guardreasoner.workflow.visible_text import visible_text

if TYPE_CHECKING:
    from rich.console import Console


def terminal_text(text: str) -> str:
    """Return a text as the terminal may show it."""
    return visible_text(redacted(text))


def show_line(text: str) -> None:
    """Print a text, usually one line, to stdout."""
    print(terminal_text(text), flush=True)


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an unexpected error to stderr; a ``sys.excepthook``."""
    sys.stderr.write(terminal_text("".join(traceback.format_exception(kind, error, trace))))


def stdout_console(width: int) -> "Console":
    """Return a rich console for stdout that shows every text as :func:`terminal_text` does.

    Args:
        width: columns if stdout is not a terminal.
    """
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
    from rich.segment import Segment

    class Shown:
        def __init__(self, content: ConsoleRenderable) -> None:
            self.content = content

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            segments = list(console.render(self.content, options))
            text = "".join(segment.text for segment in segments if not segment.control)
            if (clean := redacted(text)) != text:  # a secret may be spread over several segments
                segments = [Segment(clean)]
            for segment in segments:
                yield segment if segment.control else Segment(visible_text(segment.text), segment.style)

    class ShowAll(RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Shown(content) for content in renderables]

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else width)
    console.push_render_hook(ShowAll())
    return console
