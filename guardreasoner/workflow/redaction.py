"""Remove keys and passwords from configs and commands before they are written to a manifest."""

import os
import re
from collections.abc import Sequence
from typing import Any

_HIDDEN = "(not written)"
_MIN_SECRET_LENGTH = 8
"""Minimum length of a secret in characters; a shorter value of such a variable is a switch or a number."""

_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:(?:API)?KEY|TOKEN|SECRET|PASS(?:WORD|WD)?|CREDENTIALS?|AUTH)(?:_|$)", re.I)
_NAME = r"(?:api_?key|(?:access|auth|bearer|hf|hub)_?token|secret|password|passwd|authorization|credentials?)"
_SECRET_KEY = re.compile(rf"token|(?:.*_)?{_NAME}", re.I)
_ASSIGNED = re.compile(rf"""(\b(?:token|\w*{_NAME})["']?\s*[:=]\s*)("[^"]*"|'[^']*'|[^\s,}}\]]+)""", re.I)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def without_secrets(value: Any, key: str = "") -> Any:
    """Return a config without secrets.

    The value of an environment variable like ``OPENAI_API_KEY`` is replaced by ``${oc.env:OPENAI_API_KEY}``; the value
    of a key like ``api_key`` or ``password``, and the login in a URL, is removed.

    Args:
        value: a config, or a part of one.
        key: key of that part.
    """
    if isinstance(value, dict):
        return {name: without_secrets(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    text = value
    for name, secret in os.environ.items():
        if len(secret) >= _MIN_SECRET_LENGTH and secret in text and _SECRET_VARIABLE.search(name):
            text = text.replace(secret, f"${{oc.env:{name}}}")
    if text == value and value and _SECRET_KEY.fullmatch(key.replace("-", "_")):
        return _HIDDEN
    return _LOGIN.sub("…", text)


def command_without_secrets(argv: Sequence[str]) -> list[str]:
    """Return the arguments of a command without secrets, as :func:`without_secrets` does for a config."""
    written: list[str] = []
    key = ""
    for word in argv:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if name:
            key = name.lstrip("-").rpartition(".")[2]
        # A value may be YAML with keys.
        clean = _ASSIGNED.sub(rf"\1{_HIDDEN}", without_secrets(value, key))
        written.append(f"{name}{equals}{clean}" if name else clean)
        if equals or not name:
            key = ""
    return written
