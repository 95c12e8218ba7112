"""Interrupt ``predict`` and ``test`` at random moments and resume them, until enough runs were interrupted.

    python -m tests.support.kill_loop BASE FOLDER predict:SIGKILL:100 test:SIGTERM:50 …

Each plan is a verb, a signal and a number of interruptions. The outputs of every finished run are compared with those
of an uninterrupted one, and the exit codes and messages of stopped runs are checked. A line for each plan is printed.
The commands are forks of this process, which saves the time of their imports. SECOND instead of a signal starts the
same command again while the first one runs.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.kill_once import Ended, Started, kill_once, logged_lines, outputs

SLOW = "tests.support.slow_generator.SlowGenerator"
LINES = {"predict": 24 * 2, "test": 6 + 3 * 2}
"""Outputs of a run."""


def argv(verb: str, base: str, output: str, pause: float = 0.05) -> list[str]:
    """Return a command that generates groups of three records with pauses of some seconds between them."""
    from tests.support.tiny import command

    words = [*command({"predict": "mine", "test": "evaluate"}[verb], Path(base)), "--output", output]
    words += ["--trainer.callbacks", "[]", "--model.k", "2", "--data.chunk_size", "7"]
    words += ["--model.generator", f"{{class_path: {SLOW}, init_args: {{seconds: {pause}}}}}"]
    if verb == "test":
        words += ["--model.greedy", f"{{class_path: {SLOW}, init_args: {{temperature: 0.0, seconds: {pause}}}}}"]
        words += ["--data.rollouts", '["hard"]']
    return words


def main(base: str, folder: str, plans: Sequence[str]) -> None:
    """Prepare the folder and carry out the plans."""
    from tests.support.tiny import TinySource, write_rollouts

    work = Path(folder)
    (work / "configs").symlink_to(Path(__file__).parents[2] / "configs")
    write_rollouts(work / "hard", TinySource().records("test"))
    _import_all()
    seconds: dict[str, float] = {}
    for plan in plans:
        verb, name, count = plan.split(":")
        if verb not in seconds:
            started = time.monotonic()
            assert kill_once(argv(verb, base, f"{verb}-whole"), work, fork=True).code == 0
            seconds[verb] = time.monotonic() - started
        if name == "SECOND":
            print(_start_twice(verb, base, work, int(count)), flush=True)
        else:
            number = signal.Signals[name]
            print(_interrupt(verb, base, work, number, int(count), seconds[verb]), flush=True)


def _interrupt(verb: str, base: str, work: Path, number: signal.Signals, count: int, seconds: float) -> str:
    """Interrupt and resume runs until ``count`` were interrupted; return a summary."""
    rng = random.Random(0)
    interrupted = finished = resumed = 0
    words = argv(verb, base, f"{verb}-{number.name}")
    out = work / f"{verb}-{number.name}"
    while interrupted < count:
        had, former = logged_lines(work), _inode(out)
        if rng.random() < 0.3:  # anywhere, also while the run starts or finishes
            ended = kill_once(words, work, number, delay=rng.uniform(0, 1.1 * seconds), fork=True)
        else:
            left = LINES[verb] - had
            ended = kill_once(words, work, number, rng.randint(1, max(1, left)), rng.uniform(0, 0.05), fork=True)
        resumed += "resuming: " in ended.out
        if ended.code == 0:
            assert outputs(out) == outputs(work / f"{verb}-whole")
            finished += 1
        else:
            interrupted += 1
            _check_stopped(ended, number)
            assert not out.exists() or outputs(out) == outputs(work / f"{verb}-whole")
            was_finishing = _inode(out) not in (None, former)  # the log is removed when the output is complete
            assert was_finishing or logged_lines(work) >= had, "committed outputs were lost"
    ended = kill_once(words, work, fork=True)
    assert ended.code == 0, ended
    assert outputs(out) == outputs(work / f"{verb}-whole")
    assert not list(work.glob(f".{out.name}*")), list(work.glob(f".{out.name}*"))
    return f"{verb} {number.name}: {interrupted} interrupted, {finished + 1} finished, {resumed} resumed"


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _check_stopped(ended: Ended, number: signal.Signals) -> None:
    if number == signal.SIGKILL:
        assert ended.code == -number, ended
    else:
        assert ended.code == 128 + number, ended
        assert ended.err.startswith(f"stopped by {number.name}"), ended
        assert ended.err.count("\n") == 1, ended


def _start_twice(verb: str, base: str, work: Path, count: int) -> str:
    """Start a command again at several moments while it runs; return a summary."""
    words, out = argv(verb, base, f"{verb}-twice"), work / f"{verb}-twice"
    refused = 0
    for turn in range(count):
        first = Started(argv(verb, base, out.name, pause=1.0), work, fork=True)
        lines = LINES[verb] * turn // count  # from before the first commit to shortly before the end
        first.wait_until(lambda lines=lines: any(work.glob(f".{out.name}.*/lock")) and logged_lines(work) >= lines)  # type: ignore[misc]
        second = kill_once(words, work, fork=True)
        ended = first.end()
        assert ended.code == 0, ended
        assert outputs(out) == outputs(work / f"{verb}-whole")
        assert second.code in (0, 2), second  # 0: the first one had ended
        if second.code == 2:
            refused += 1
            assert second.err.startswith("error: "), second
            assert len(second.err.splitlines()) <= 2, second
    return f"{verb} started twice: {refused} of {count} refused"


def _import_all() -> None:
    """Import what the commands use, so that forks need not."""
    import torch

    import tests.support.slow_generator  # noqa: F401

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
