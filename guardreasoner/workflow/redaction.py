"""Takes keys and passwords out of what is written down about a command."""

import os
import re
from collections.abc import Sequence
from typing import Any

_HIDDEN = "(not written)"
_SHORTEST = 8
"""Characters; a shorter value is a switch or a number that happens to lie in a variable of such a name."""

_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:(?:API)?KEY|TOKEN|SECRET|PASS(?:WORD|WD)?|CREDENTIALS?|AUTH)(?:_|$)", re.I)
_NAME = r"(?:api_?key|(?:access|auth|bearer|hf|hub)_?token|secret|password|passwd|authorization|credentials?)"
_SECRET_KEY = re.compile(rf"token|(?:.*_)?{_NAME}", re.I)
_ASSIGNED = re.compile(rf"""(\b(?:token|\w*{_NAME})["']?\s*[:=]\s*)("[^"]*"|'[^']*'|[^\s,}}\]]+)""", re.I)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def without_secrets(value: Any, key: str = "") -> Any:
    """Return a config without what must stay secret.

    The value of an environment variable with a name like ``OPENAI_API_KEY`` becomes ``${oc.env:OPENAI_API_KEY}`` again;
    what stands under a key like ``api_key`` or ``password``, and the login in an address, is left out.

    Args:
        value: a config, or a part of one.
        key: what it stands under.
    """
    if isinstance(value, dict):
        return {name: without_secrets(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    text = value
    for name, secret in os.environ.items():
        if len(secret) >= _SHORTEST and secret in text and _SECRET_VARIABLE.search(name):
            text = text.replace(secret, f"${{oc.env:{name}}}")
    if text == value and value and _SECRET_KEY.fullmatch(key.replace("-", "_")):
        return _HIDDEN
    return _LOGIN.sub("…", text)


def command_without_secrets(words: Sequence[str]) -> list[str]:
    """Return the words of a command without what must stay secret, as :func:`without_secrets` does for a config."""
    written: list[str] = []
    key = ""
    for word in words:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if name:
            key = name.lstrip("-").rpartition(".")[2]
        # A value may be YAML, with keys of its own.
        clean = _ASSIGNED.sub(rf"\1{_HIDDEN}", without_secrets(value, key))
        written.append(f"{name}{equals}{clean}" if name else clean)
        if equals or not name:
            key = ""
    return written
