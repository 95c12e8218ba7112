"""SIGTERM and SIGINT at a random moment of fit, predict and test: saved, exit 143 or 130, resumed identically."""

import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from reliability import children
from reliability.children import Child
from reliability.fits import FITS, OUTPUT, Findings, Fit, Inputs, Wholes, differences, files, lay_out, summary, written
from reliability.part import Outcome, Part, Trial

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TRIES = 5
"""Attempts at a moment before the end of a run."""


@dataclass(frozen=True)
class Sampling:
    """A ``predict`` or ``test``.

    Args:
        verb: The verb.
        stage: Name of its config.
        flags: What it has beyond the shipped config.
    """

    verb: str
    stage: str
    flags: tuple[str, ...]

    def argv(self, inputs: Inputs) -> tuple[str, ...]:
        """Return verb and flags."""
        from tests.support.tiny import command

        flags = [flag.format(hard_set=inputs.hard_set) for flag in self.flags]
        return command(
            *(self.stage, inputs.base, "--data.source", inputs.source, "--recipe.max_new_tokens", "96", *flags),
            *("--data.chunk_size", "4", "--model.generator.init_args.chunk", "2"),
        )


SAMPLINGS = (
    Sampling("predict", "mine", ()),
    Sampling("test", "evaluate", ("--data.rollouts", "[{hard_set}]", "--model.greedy.init_args.chunk", "2")),
)


@contextmanager
def trials(folder: Path) -> Iterator[Iterable[Trial]]:
    """Yield two fits, a mining run and a test with each signal, then again with the next seed."""
    children.preload()
    inputs = Inputs.make(folder / "inputs")
    wholes = Wholes(folder / "wholes", inputs)
    sampled = SampledWholes(folder / "sampled", inputs)
    yield _endless(wholes, sampled)


def _endless(wholes: Wholes, sampled: "SampledWholes") -> Iterator[Trial]:
    for seed in count():
        for number in SIGNALS:
            for fit in (FITS[2 * seed % len(FITS)], FITS[(2 * seed + 1) % len(FITS)]):
                run = partial(stop_fit, fit=fit, wholes=wholes, number=number, seed=seed)
                yield Trial(f"{fit.name}/{number.name}/{seed}", run)
            for sampling in SAMPLINGS:
                run = partial(stop_sampling, run=sampling, sampled=sampled, number=number, seed=seed)
                yield Trial(f"{sampling.verb}/{number.name}/{seed}", run)


def stop_fit(folder: Path, fit: Fit, wholes: Wholes, number: signal.Signals, seed: int) -> Outcome:
    """Send a signal after a random step; the second run must take exactly the steps that are left."""
    whole = wholes.of(fit)
    if whole.failure:
        return Outcome(failure=whole.failure)
    rng = random.Random(f"{fit.name}/{number.name}/{seed}")

    def moment(child: Child) -> None:
        child.wait_for(children.STEP, rng.randint(1, fit.steps - 2))
        child.wait_until(child.age() + rng.uniform(0, whole.seconds / fit.steps))

    def is_finished(work: Path) -> bool:
        return not differences(files(work / OUTPUT), files(whole.folder / OUTPUT))

    argv = fit.argv(wholes.inputs)
    work, first, second, problems = _stopped_and_continued(folder, argv, number, moment, is_finished)
    if second is not None:
        problems += differences(written(work), whole.findings)
        if first.steps + second.steps != fit.steps:
            problems.append(f"{first.steps} steps, then {second.steps}, expected {fit.steps} together")
    return Outcome(failure=summary(problems))


class SampledWholes:
    """The uninterrupted runs of ``predict`` and ``test``, each run when it is first asked for.

    Args:
        folder: Folder for their files.
        inputs: Models and records.
    """

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self.folder = folder
        self.inputs = inputs
        self._known: dict[str, tuple[Findings, float, str | None]] = {}

    def of(self, run: Sampling) -> tuple[Findings, float, str | None]:
        """Return what an uninterrupted run wrote, its seconds, and why it cannot be compared with."""
        if run.verb not in self._known:
            work = lay_out(self.folder / run.verb)
            child = children.start(run.argv(self.inputs), work)
            code = child.end()
            failure = f"the uninterrupted run ended with {code}: {children.last_line(child.log)}" if code else None
            self._known[run.verb] = {} if failure else files(work / OUTPUT), child.seconds, failure
        return self._known[run.verb]


def stop_sampling(folder: Path, run: Sampling, sampled: SampledWholes, number: signal.Signals, seed: int) -> Outcome:
    """Send a signal while answers are sampled; none that was stored may be lost."""
    whole, seconds, failure = sampled.of(run)
    if failure:
        return Outcome(failure=failure)
    rng = random.Random(f"{run.verb}/{number.name}/{seed}")

    def moment(child: Child) -> None:
        work = child.log.with_suffix("")
        while not _stored_bytes(work) and child.age() < seconds and child.wait_until(child.age() + 0.01):
            pass
        child.wait_until(child.age() + rng.uniform(0, 0.6 * seconds))

    def is_finished(work: Path) -> bool:
        return not differences(files(work / OUTPUT), whole)

    argv = run.argv(sampled.inputs)
    work, _, second, problems = _stopped_and_continued(folder, argv, number, moment, is_finished)
    if second is not None:
        problems += differences(files(work / OUTPUT), whole)
        if left := _stored_bytes(work):
            problems.append(f"{left} bytes of stored answers left behind")
    return Outcome(failure=summary(problems))


def _stored_bytes(work: Path) -> int:
    """Return the size of the answers that an unfinished run keeps beside its output; 0 for a fit."""
    return sum(path.stat().st_size for path in work.rglob(f".{OUTPUT}*/*.jsonl"))


def _stopped_and_continued(
    folder: Path,
    argv: tuple[str, ...],
    number: signal.Signals,
    moment: Callable[[Child], None],
    is_finished: Callable[[Path], bool],
) -> tuple[Path, Child, Child | None, list[str]]:
    """Stop a run with a signal and run it again.

    Args:
        folder: Folder for the files.
        argv: Verb and flags.
        number: The signal.
        moment: Waits until the signal is to be sent.
        is_finished: Whether the working folder holds the whole output.

    Returns:
        The working folder, the stopped run, the second run (None if it was not reached or failed), and the problems.
    """
    for attempt in range(TRIES):
        work = lay_out(folder / f"work{attempt}")
        first = children.start(argv, work)
        moment(first)
        stored = _stored_bytes(work)
        first.send(number)
        code = first.end()
        if code != 0 or not is_finished(work):
            break  # else the signal came too late
    else:
        return work, first, None, [f"the run ended before the signal in {TRIES} of {TRIES} attempts"]
    problems = []
    if code != 128 + number:
        problems.append(f"exit code {code}, expected {128 + number}: {children.last_line(first.log)}")
    if "Traceback" in first.log.read_text(errors="replace"):
        problems.append(f"a traceback: {children.last_line(first.log)}")
    if (work / OUTPUT).exists():
        problems.append("the stopped run wrote its output")
    if (left := _stored_bytes(work)) < stored:
        problems.append(f"{stored - left} of {stored} bytes of stored answers are lost")
    first.log.rename(first.log.with_suffix(".first"))
    second = children.start(argv, work)
    if code := second.end():
        problems.append(f"the second run ended with {code}: {children.last_line(second.log)}")
        return work, first, None, problems
    return work, first, second, problems


PART = Part(
    "signals",
    "SIGTERM / SIGINT at a random moment of fit, predict, test: saved, exit 143 / 130, resumed identically",
    50,
    "signals",
    trials,
)
