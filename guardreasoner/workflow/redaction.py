"""Remove keys and passwords from what is written (configs, commands, texts of servers) and from what is shown."""

import os
import re
from argparse import Namespace
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

_HIDDEN = "(not written)"
_MIN_SECRET_LENGTH = 8
"""Minimum length of a secret in characters; a shorter value of such a variable is a switch or a number."""

_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:(?:API)?KEY|TOKEN|SECRET|PASS(?:WORD|WD)?|CREDENTIALS?|AUTH)(?:_|$)", re.I)
# An ordinary key may end in token or key too: pad_token, gold_key.
_TOKEN = "access|api|auth|bearer|bot|github|gitlab|hf|hub|oauth|personal|private|refresh|secret|session|slack"
_KEY = "access|account|api|auth|encryption|private|secret|signing|subscription"
_NAME = rf"(?:(?:{_KEY})[_-]?key|(?:{_TOKEN})[_-]?token|secret|pass(?:word|wd|phrase)|authorization|credentials?)"
_SECRET_KEY = re.compile(rf"token|(?:.*_)?{_NAME}", re.I)
_ASSIGNED = re.compile(rf"""(\b(?:token|\w*{_NAME})["']?\s*[:=]\s*)("[^"]*"|'[^']*'|[^\s,}}\]]+)""", re.I)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_QUERY = re.compile(rf"(?<=[?&])((?:key|token|\w*{_NAME})=)[^&#\s'\"]+", re.I)
_BEARER = re.compile(r"\b((?:Bearer|Basic)\s+)[\w.~+/=-]{8,}")

_remembered: set[str] = set()


def remember_secrets(config: Any, key: str = "") -> None:
    """Remember the secrets in a config, so that :func:`redacted` removes them wherever they occur.

    They are the value of the environment variable that a key like ``key_variable`` names, the value of a key like
    ``api_key`` or ``password``, and logins and keys in URLs.

    Args:
        config: a config, or a part of one.
        key: key of that part.
    """
    for value in _secrets(config, key):
        if len(value) >= _MIN_SECRET_LENGTH:
            _remembered.update((value, quote(value, safe=""), unquote(value)))


def redacted(text: str) -> str:
    """Return a text without secrets.

    Removed are the values of environment variables like ``OPENAI_API_KEY``, remembered secrets, and logins and keys in
    URLs and in Authorization headers.
    """
    return _without_url_secrets(_BEARER.sub(rf"\1{_HIDDEN}", _without_values(text, _known())))


def without_keys(text: str) -> str:
    """Return a text that a server wrote without the known keys that it may repeat; nothing else is changed.

    Only values are removed that cannot be words, since a server without keys accepts any value as its key.
    """
    return _without_values(text, (secret for secret in _known() if _is_random(secret)))


def without_secrets(value: Any, key: str = "") -> Any:
    """Return a config without secrets.

    The value of an environment variable like ``OPENAI_API_KEY`` is replaced by ``${oc.env:OPENAI_API_KEY}``; the value
    of a key like ``api_key`` or ``password``, and the login and keys in a URL, are removed.

    Args:
        value: a config, also a parsed one, or a part of one.
        key: key of that part.
    """
    if isinstance(value, Namespace):
        return type(value)(**without_secrets(vars(value)))
    if isinstance(value, dict):
        return {name: without_secrets(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    text = value
    for name, secret in _secret_variables().items():
        if secret in text:
            text = text.replace(secret, f"${{oc.env:{name}}}")
    if text == value and value and _SECRET_KEY.fullmatch(key.replace("-", "_")):
        return _HIDDEN
    return _without_url_secrets(text)


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


def _secret_variables() -> dict[str, str]:
    """Return the environment variables that hold a secret, by name."""
    return {
        name: value
        for name, value in os.environ.items()
        if len(value) >= _MIN_SECRET_LENGTH and _SECRET_VARIABLE.search(name)
    }


def _known() -> set[str]:
    return {*_remembered, *_secret_variables().values()}


def _is_random(secret: str) -> bool:
    return len(secret) >= 2 * _MIN_SECRET_LENGTH and any(map(str.isdigit, secret)) and any(map(str.isalpha, secret))


def _without_values(text: str, secrets: Iterable[str]) -> str:
    # The longest first, since one may contain another.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return text


def _without_url_secrets(text: str) -> str:
    return _QUERY.sub(rf"\1{_HIDDEN}", _LOGIN.sub("…", text))


def _secrets(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(inner, key)
    elif isinstance(value, str):
        if key == "key_variable":
            yield os.environ.get(value, "")
        elif _SECRET_KEY.fullmatch(key.replace("-", "_")):
            yield value
            yield value.removeprefix("Bearer ")
        for login in _LOGIN.findall(value):
            yield login
            yield login.partition(":")[2]
            yield b64encode(unquote(login).encode()).decode()  # as in the header "Authorization: Basic …"
        for match in _QUERY.finditer(value):
            yield match[0].partition("=")[2]
