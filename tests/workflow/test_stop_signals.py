"""SIGTERM and SIGINT: stop at a safe moment, then at once; small programs stand for the runs."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.workflow import stop_signals

ROOT = Path(__file__).parents[2]
BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])

PROGRAM = """
import signal, sys, time
from guardreasoner.workflow import stop_signals

signal.signal(signal.SIGINT, signal.default_int_handler)
with stop_signals.handled():
    if "defer" in sys.argv:
        stop_signals.defer()
    print("ready", flush=True)
    for step in range(400):
        time.sleep(0.05)
        if "check" in sys.argv:
            stop_signals.note(f"{step} done")
            stop_signals.check()
        if "fail" in sys.argv and stop_signals.received():
            raise OSError("the other end is gone")
print("finished")
"""


@pytest.fixture
def program() -> Callable[..., "subprocess.Popen[str]"]:
    """A function that starts the program and waits until it handles signals."""

    def start(*words: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    return start


@BOTH
@pytest.mark.parametrize("words", [(), ("defer", "check"), ("defer", "fail")])
def test_a_signal_stops_the_run(
    words: tuple[str, ...], number: signal.Signals, program: Callable[..., "subprocess.Popen[str]"]
) -> None:
    process = program(*words)
    process.send_signal(number)
    assert process.wait(timeout=20) == 128 + number


@BOTH
def test_a_second_signal_ends_the_run_at_once(
    number: signal.Signals, program: Callable[..., "subprocess.Popen[str]"]
) -> None:
    process = program("defer")  # it never checks
    process.send_signal(number)
    process.send_signal(number)  # counts as the same one
    time.sleep(1.0)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=5) == 128 + number


def stopped_by(number: signal.Signals, then: Callable[[], None]) -> stop_signals.Stopped:
    """Receive a signal, call a function, and return what ended the block."""
    try:
        with stop_signals.handled():
            stop_signals.defer()
            signal.raise_signal(number)
            then()
            stop_signals.check()
    except stop_signals.Stopped as stopped:
        return stopped
    raise AssertionError("not stopped")


def test_the_line_says_what_is_done() -> None:
    stopped = stopped_by(signal.SIGTERM, lambda: stop_signals.note("3 of 4 done"))
    assert stopped.line() == "stopped by SIGTERM: 3 of 4 done"
    assert stopped.code == 143
    stop_signals.check()  # nothing is left of it


def test_an_error_that_a_signal_causes_is_part_of_the_line() -> None:
    def fail() -> None:
        raise RuntimeError("connection closed\nby peer")

    assert stopped_by(signal.SIGINT, fail).line() == "stopped by SIGINT: RuntimeError: connection closed"


def test_handlers_are_taken_back_and_restored() -> None:
    former = signal.getsignal(signal.SIGTERM)
    with stop_signals.handled():
        handler = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stop_signals.take_handlers_back()
        assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getsignal(signal.SIGTERM) is former


def test_an_ignored_signal_stays_ignored() -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals.handled():
            stop_signals.defer()
            signal.raise_signal(signal.SIGINT)
            stop_signals.check()
    finally:
        signal.signal(signal.SIGINT, former)
