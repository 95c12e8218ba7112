"""Start a command, send it a signal at a chosen moment, and see how it ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_DEADLINE = 300.0


class Ended(NamedTuple):
    """How a command ended.

    Args:
        code: exit code; negative after a signal that the command does not handle.
        out: standard output.
        err: standard error.
    """

    code: int
    out: str
    err: str


class Started:
    """A command that is running.

    Args:
        argv: verb and flags of ``python -m guardreasoner``.
        folder: working folder.
        fork: whether to run it in a fork of this process, which saves the time of all imports. This process must not
            have used torch's threads before.
    """

    def __init__(self, argv: Sequence[str], folder: Path, fork: bool = False) -> None:
        # files, since nobody reads a pipe while the command runs
        self._out, self._err = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115
        if fork:
            self.pid = _fork(argv, folder, self._out.fileno(), self._err.fileno())
            return
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "guardreasoner", *argv]
        self.pid = subprocess.Popen(words, cwd=folder, env=environment, stdout=self._out, stderr=self._err).pid

    def has_ended(self) -> bool:
        """Return whether the command has ended; it can still be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds or the command ends."""
        deadline = time.monotonic() + _DEADLINE
        while not self.has_ended() and not condition():
            assert time.monotonic() < deadline, "the command does not get there"
            time.sleep(0.01)

    def end(self) -> Ended:
        """Wait until the command ends."""
        deadline = time.monotonic() + _DEADLINE
        while not self.has_ended():
            assert time.monotonic() < deadline, "the command does not end"
            time.sleep(0.01)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read())
            file.close()
        return Ended(code, *texts)


def kill_once(
    argv: Sequence[str],
    folder: Path,
    number: int | None = None,
    after_lines: int = 0,
    delay: float = 0.0,
    fork: bool = False,
) -> Ended:
    """Run ``python -m guardreasoner`` in a folder and send it a signal, unless it ends before.

    Args:
        argv: verb and flags.
        folder: working folder; the logs of unfinished runs anywhere below it are watched.
        number: the signal; None runs the command to its end.
        after_lines: number of outputs that the logs must gain before the signal is sent.
        delay: seconds to wait after that, for a moment between two commits.
        fork: as for :class:`Started`.

    Returns:
        How the command ended.
    """
    before = logged_lines(folder)
    started = Started(argv, folder, fork)
    if number is not None:
        started.wait_until(lambda: logged_lines(folder) - before >= after_lines)
        time.sleep(delay)
        if not started.has_ended():
            os.kill(started.pid, number)
    return started.end()


def logged_lines(folder: Path) -> int:
    """Return the number of outputs in the logs of unfinished runs below a folder."""
    while True:
        try:
            files = [path.read_bytes() for path in folder.rglob(".*.partial/*-[0-9]*.jsonl")]
        except FileNotFoundError:
            continue  # a folder was renamed meanwhile
        return sum(line.startswith(b"{") for file in files for line in file.splitlines())


def outputs(folder: Path) -> dict[str, bytes]:
    """Return the files that a finished run wrote, by name, without manifests, which hold times."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "manifest" not in path.name)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _fork(argv: Sequence[str], folder: Path, out: int, err: int) -> int:
    """Run the command in a fork of this process; return the id of the fork."""
    if child := os.fork():
        return child
    code = 1
    try:
        os.chdir(folder)
        os.dup2(out, 1)
        os.dup2(err, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["guardreasoner"]
        from guardreasoner.cli.main import main

        code = main(list(argv))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
