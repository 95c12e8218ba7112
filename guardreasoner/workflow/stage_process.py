"""Run the stages of a command one after another, each in its own process.

The processes are forks of one process that has imported what stages need (:mod:`guardreasoner.cli.fork_server`), so
that a chain of stages imports it once. Where that is impossible, a stage is a new process; nothing else differs.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from guardreasoner.workflow import stop_signals

LAUNCHER = (sys.executable, "-m", "guardreasoner")
STAGE_VARIABLE = "GUARDREASONER_STAGE"
"""Environment variable of the process of a stage that another command runs."""

_SERVER = (sys.executable, "-m", "guardreasoner.cli.fork_server")


class _Process(Protocol):
    def send_signal(self, number: int, /) -> Any: ...
    def wait(self) -> int: ...


class StageRunner:
    """Runs programs in this terminal; a context manager, at whose end the process that they are forks of has ended.

    Args:
        launcher: program and arguments that start the command line; only stages of the default one are forks.
    """

    def __init__(self, launcher: Sequence[str] = LAUNCHER) -> None:
        self.launcher = tuple(launcher)
        self._can_fork = self.launcher == LAUNCHER and sys.platform == "linux"
        self._server: _ForkServer | None = None

    def __enter__(self) -> "StageRunner":
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    def run(self, argv: Sequence[str]) -> int:
        """Run a command line and return its exit code.

        A signal is passed on to the process, which may save what it has done.

        Args:
            argv: verb and flags.

        Raises:
            Stopped: a signal arrived; the process has ended.
        """
        with stop_signals.handled():
            stop_signals.defer()
            process = self._fork(argv) or subprocess.Popen([*self.launcher, *argv], env=_environment())
            stop_signals.defer(process.send_signal)
            code = process.wait()
            stop_signals.check()
        return code if code >= 0 else 128 - code

    def _fork(self, argv: Sequence[str]) -> _Process | None:
        """Return a fork that runs a command line; None if there can be none."""
        # A server ends with the thread that started it.
        if not self._can_fork or threading.current_thread() is not threading.main_thread():
            return None
        self._server = self._server or _ForkServer()
        stage = self._server.fork(argv)
        self._can_fork = stage is not None
        return stage


class _ForkServer:
    """The process that stages are forks of."""

    def __init__(self) -> None:
        self._connection, end = socket.socketpair()
        with end:
            self._process = subprocess.Popen([*_SERVER, str(end.fileno())], env=_environment(), pass_fds=[end.fileno()])
        self._answers = self._connection.makefile("r")

    def fork(self, argv: Sequence[str]) -> "_Stage | None":
        """Return a new fork that runs a command line; None if the server has ended."""
        with suppress(OSError):
            self._connection.sendall(json.dumps(list(argv)).encode() + b"\n")
            if pid := self.answer():
                return _Stage(pid, self)
        return None

    def answer(self) -> int | None:
        """Wait for the next number from the server; return None if it has ended."""
        try:
            return int(self._answers.readline())
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """End the server."""
        self._answers.close()
        self._connection.close()
        self._process.wait()


class _Stage:
    """A process that is a fork of the server."""

    def __init__(self, pid: int, server: _ForkServer) -> None:
        self._pid, self._server = pid, server

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def wait(self) -> int:
        code = self._server.answer()
        if code is not None:
            return code
        # The server was killed, which stops its forks.
        while True:
            try:
                os.kill(self._pid, 0)
            except ProcessLookupError:
                return -9
            time.sleep(0.05)


def _environment() -> dict[str, str]:
    return {**os.environ, STAGE_VARIABLE: "1"}
