"""Commands that must be refused with one line and at most one hint, without a traceback."""

import re
from collections.abc import Sequence
from pathlib import Path

from reliability import children

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def refusal(folder: Path, argv: Sequence[str], parts: Sequence[str] = (), exit_code: int | None = 2) -> str | None:
    """Run a command that must be refused, and return what is wrong with its end, None if nothing.

    Args:
        folder: Working folder, which holds what the command needs.
        argv: Verb and flags.
        parts: Texts that the message must contain, keys without ``init_args``.
        exit_code: The required exit code; None allows any but 0.
    """
    child = children.start(argv, folder, environment={"OPENAI_API_KEY": "unused", "HF_HUB_OFFLINE": "1"})
    code = child.end()
    lines = child.log.read_text(errors="replace").splitlines()
    line = children.last_line(child.log)
    if any("Traceback" in text for text in lines):
        return f"a traceback: {line}"
    if code == 0 or code < 0 or (exit_code is not None and code != exit_code):
        return f"exit code {code}: {line}"
    errors = [number for number, text in enumerate(lines) if text.startswith("error: ")]
    if len(errors) != 1:
        return f"{len(errors)} lines start with 'error:', expected 1: {line}"
    if [text.split(":")[0] for text in lines[errors[0] :]] not in (["error"], ["error", "hint"]):
        return f"more than one line and one hint: {line}"
    message = "\n".join(lines[errors[0] :])
    shown = "\n".join(lines).replace("init_args.", "")  # faulty rows have lines of their own before the error
    if absent := [part for part in parts if part and part not in shown]:
        return f"{absent[0]!r} is not named: {message}"
    if _CONTROL.search(message):
        return f"control characters: {message!r}"
    return None
