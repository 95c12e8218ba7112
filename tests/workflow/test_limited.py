"""Untrusted input is processed in a child process that cannot use up this one's time and memory."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from guardreasoner.workflow.limited import LimitError, run_limited


def fails() -> None:
    raise KeyError("why")


def forever() -> None:
    while True:
        pass


def in_one_call() -> int:
    return len(str(7 ** (10**9)))  # a single call, which no Python code can interrupt


@pytest.mark.parametrize("value", [None, "é\ud800", ["a", 1], "x" * 1_000_000])
def test_the_result_is_returned(value: object) -> None:
    assert run_limited(lambda: value) == value


def test_an_exception_is_raised_here() -> None:
    with pytest.raises(ValueError, match="why"):
        run_limited(fails)


@pytest.mark.parametrize("function", [forever, in_one_call])
def test_the_time_is_limited(monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any]) -> None:
    monkeypatch.setattr("guardreasoner.workflow.limited._SECONDS", 0.2)
    with pytest.raises(LimitError, match=r"longer than 0\.2 seconds"):
        run_limited(function)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: "a" * 10**10, "more than 512 MiB"),
        (lambda: "a" * (1 << 25), "returns more than 16 MiB"),
        (lambda: os._exit(3), "more than 512 MiB"),
    ],
)
def test_memory_and_result_are_limited(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any], message: str
) -> None:
    monkeypatch.setattr("guardreasoner.workflow.limited._SECONDS", 60.0)  # a busy machine must not reach this limit
    with pytest.raises(LimitError, match=message):
        run_limited(function)
