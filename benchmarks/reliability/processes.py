"""Two-process fits (DDP with gloo on a CPU): losses of one process, and exact resume after ``kill -9``."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from reliability import children
from reliability.fits import FITS, OUTPUT, ROOT, Findings, Fit, Inputs, differences, files, lay_out, summary, written
from reliability.part import Outcome, Part, Trial

TOLERANCE = 1e-4
"""Largest relative difference of the losses of one and of two processes, which add in another order."""
_TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
TWO_PROCESS_FITS = tuple(
    Fit(fit.name, fit.stage, fit.flags, fit.epochs, fit.model)
    for fit in FITS
    if fit.name in ("rsft", "rsft-accumulation", "hsdpo-precomputed", "hsdpo-frozen-adapter")
)


@contextmanager
def trials(folder: Path) -> Iterator[Iterable[Trial]]:
    """Yield one kill a trial, for each kind of fit, then again with the next seed."""
    wholes = TwoProcessWholes(folder / "wholes", Inputs.make(folder / "inputs"))
    yield (
        Trial(f"{fit.name}/{seed}", partial(kill_both, fit=fit, wholes=wholes, seed=seed))
        for seed in count()
        for fit in TWO_PROCESS_FITS
    )


class TwoProcessWholes:
    """The uninterrupted two-process fits, each run when it is first asked for.

    Args:
        folder: Folder for their files.
        inputs: Models and rollouts.
    """

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self.folder = folder
        self.inputs = inputs
        self._known: dict[str, tuple[Findings, float, list[str]]] = {}

    def of(self, fit: Fit) -> tuple[Findings, float, list[str]]:
        """Return what the uninterrupted fit wrote, the seconds of its training, and what is wrong with it."""
        if fit.name not in self._known:
            self._known[fit.name] = self._run(fit)
        return self._known[fit.name]

    def output_of(self, fit: Fit) -> Path:
        """Return the folder of the model that the uninterrupted two-process fit wrote."""
        return self._folder(fit, 2) / OUTPUT

    def _folder(self, fit: Fit, processes: int) -> Path:
        return self.folder / f"{fit.name}-{processes}"

    def _run(self, fit: Fit) -> tuple[Findings, float, list[str]]:
        found: dict[int, Findings] = {}
        seconds = 0.0
        for processes, flags in ((1, ()), (2, _TWO)):
            work = lay_out(self._folder(fit, processes))
            run = _start([*fit.argv(self.inputs), *flags], work)
            _wait_for_training(run, work)
            started = time.monotonic()
            if code := run.wait():
                line = children.last_line(_log(work))
                return {}, 0.0, [f"the uninterrupted fit of {processes} processes ended with {code}: {line}"]
            seconds = time.monotonic() - started
            found[processes] = written(work)
        return found[2], seconds, _loss_differences(found[2]["train/loss"], found[1]["train/loss"])


def kill_both(folder: Path, fit: Fit, wholes: TwoProcessWholes, seed: int) -> Outcome:
    """Kill both processes at a random moment of training, and run the command again."""
    whole, seconds, problems = wholes.of(fit)
    if problems:
        return Outcome(failure=summary(problems))
    rng = random.Random(f"{fit.name}/{seed}")
    work, argv = lay_out(folder / "work"), [*fit.argv(wholes.inputs), *_TWO]
    run = _start(argv, work)
    _wait_for_training(run, work)
    time.sleep(rng.uniform(0, 0.8 * seconds))
    os.killpg(run.pid, signal.SIGKILL)
    if (code := run.wait()) != -signal.SIGKILL:
        return Outcome(0, None if code == 0 else f"the fit ended with {code}: {children.last_line(_log(work))}")
    if (work / OUTPUT).exists():  # it had finished; the same command would train anew
        return Outcome(1, summary(differences(files(work / OUTPUT), files(wholes.output_of(fit)))))
    started = time.time()
    run = _start(argv, work)
    if code := run.wait():
        return Outcome(1, f"after the kill, the fit ended with {code}: {children.last_line(_log(work))}")
    problems = differences(written(work), whole)
    if _logged_since(work / "logs", started) == fit.steps:
        problems.append("the second run took all steps, although the first one had a checkpoint")
    return Outcome(1, summary(problems))


def _start(argv: Sequence[str], work: Path) -> "subprocess.Popen[bytes]":
    """Start a command in a process group of its own; Lightning starts the second process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    with _log(work).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "guardreasoner", *argv],
            cwd=work,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=children.end_with_parent,
        )


def _log(work: Path) -> Path:
    return work.with_name(f"{work.name}.log")


def _wait_for_training(run: "subprocess.Popen[bytes]", work: Path) -> None:
    """Wait for the first checkpoint, or the end of the run."""
    while run.poll() is None and not _checkpoints(work):
        time.sleep(0.02)


def _logged_since(logs: Path, started: float) -> int:
    """Return the number of training losses that were logged after a time."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    count = 0
    for folder in {path.parent for path in logs.rglob("events.out.tfevents.*")}:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        if "train/loss" in events.Tags()["scalars"]:
            count += sum(event.wall_time >= started for event in events.Scalars("train/loss"))
    return count


def _checkpoints(work: Path) -> list[Path]:
    return list(work.glob(f".{OUTPUT}*/*.ckpt"))


def _loss_differences(two: Sequence[tuple[int, float]], one: Sequence[tuple[int, float]]) -> list[str]:
    if len(two) != len(one):
        return [f"train/loss: two processes logged {len(two)} steps, one {len(one)}"]
    for (step, a), (_, b) in zip(two, one, strict=True):
        if not math.isclose(a, b, rel_tol=TOLERANCE):
            return [f"train/loss: two processes have {a!r} at step {step}, one has {b!r}"]
    return []


PART = Part(
    "processes",
    "two-process DDP (gloo): resume after `kill -9` equals the uninterrupted run; loss equals that of one process",
    20,
    "kills",
    trials,
)
