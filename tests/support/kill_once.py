"""Start a command, send it a signal at a chosen moment, and see how it ends."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
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
        seconds: time from the signal to the end; 0 if the command ended before.
    """

    code: int
    out: str
    err: str
    seconds: float


def kill_once(
    argv: Sequence[str],
    folder: Path,
    number: int | None = None,
    after_lines: int = 0,
    delay: float = 0.0,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run ``python -m guardreasoner`` in a folder and send it a signal, unless it ends before.

    Args:
        argv: verb and flags.
        folder: working folder; the logs of unfinished runs anywhere below it are watched.
        number: the signal; None runs the command to its end.
        after_lines: number of outputs that the logs must gain before the signal is sent.
        delay: seconds to wait after that, for a moment between two commits.
        environment: further environment variables.

    Returns:
        How the command ended.
    """
    before = logged_lines(folder)
    process = start(argv, folder, environment)
    sent = 0.0
    if number is not None:
        deadline = time.monotonic() + _DEADLINE
        while process.poll() is None and logged_lines(folder) - before < after_lines:
            assert time.monotonic() < deadline, "the command writes nothing"
            time.sleep(0.02)
        time.sleep(delay)
        if process.poll() is None:
            sent = time.monotonic()
            process.send_signal(number)
    return end(process, sent)


def start(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[str]":
    """Start ``python -m guardreasoner`` in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "guardreasoner", *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: "subprocess.Popen[str]", sent: float = 0.0) -> Ended:
    """Wait until a command ends.

    Args:
        process: the command.
        sent: when a signal was sent to it; 0 if none was.
    """
    out, err = process.communicate(timeout=_DEADLINE)
    return Ended(process.returncode, out, err, time.monotonic() - sent if sent else 0.0)


def logged_lines(folder: Path) -> int:
    """Return the number of outputs in the logs of unfinished runs below a folder."""
    count = 0
    for path in folder.rglob(".*.partial/*-[0-9]*.jsonl"):
        try:
            count += path.read_bytes().count(b'\n{"record_id"') + 1 if path.stat().st_size else 0
        except FileNotFoundError:
            continue  # the run has just ended
    return count


def outputs(folder: Path) -> dict[str, bytes]:
    """Return the files that a finished run wrote, by name, without manifests, which hold times."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "manifest" not in path.name)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
