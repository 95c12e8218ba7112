"""Run a function on untrusted input in a child process with limits of time and memory."""

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SECONDS = 2.0
"""CPU seconds of the child."""

_WALL_SECONDS = 120
"""Seconds after which the child ends even if it waits."""

_MEMORY = 1 << 29
"""Bytes that the child may allocate."""

_MAX_RESULT = 1 << 24
"""Bytes of the result as JSON."""


class LimitError(Exception):
    """A limit was exceeded; the message says which."""


def run_limited(function: Callable[[], Any]) -> Any:
    """Return what a function returns in a forked child process, which cannot exhaust this one.

    Args:
        function: returns a JSON value; it must not need threads of this process.

    Raises:
        LimitError: the function takes more than 2 CPU seconds, allocates more than 512 MiB, or returns more than
            16 MiB.
        ValueError: the function raised an exception; the message is the exception's.
    """
    # A fork, not a new process: the function needs what this process has loaded, which takes seconds to import.
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _run_child(function, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        result = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status in (-signal.SIGPROF, -signal.SIGALRM):
        raise LimitError(f"takes longer than {_SECONDS:g} seconds")
    if status:
        raise LimitError(f"needs more than {_MEMORY >> 20:,} MiB of memory")
    kind, value = json.loads(result)
    if kind == "limit":
        raise LimitError(value)
    if kind == "error":
        raise ValueError(value)
    return value


def _run_child(function: Callable[[], Any], writing: int) -> None:
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        _set_limits()
        result = _result(function)
        with open(writing, "wb") as pipe:
            pipe.write(result)
        status = 0
    finally:
        os._exit(status)  # without the exit handlers and buffered output of the parent


def _result(function: Callable[[], Any]) -> bytes:
    try:
        result = json.dumps(["value", function()]).encode()
    except MemoryError:
        return json.dumps(["limit", f"needs more than {_MEMORY >> 20:,} MiB of memory"]).encode()
    except Exception as error:
        return json.dumps(["error", str(error)[:1000] or type(error).__name__]).encode()
    if len(result) > _MAX_RESULT:
        return json.dumps(["limit", f"returns more than {_MAX_RESULT >> 20} MiB"]).encode()
    return result


def _set_limits() -> None:
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        used = int(statistics.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    signal.alarm(_WALL_SECONDS)
