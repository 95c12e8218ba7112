"""Fits that are killed with SIGKILL several times and started again with the same command until they end."""

import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from reliability import children
from reliability.children import Report
from reliability.fits import EVERY, FITS, OUTPUT, Fit, Inputs, Wholes, differences, files, lay_out, summary, written
from reliability.part import Outcome, Part, Trial

KILLS = 4
"""Kills of one fit."""
LOST = EVERY + 1
"""Steps that a kill may cost: those since the last checkpoint, one more if the kill hit while it was written."""


@contextmanager
def trials(folder: Path) -> Iterator[Iterable[Trial]]:
    """Yield chains of kills, one for each kind of fit, then again with the next seed."""
    children.preload()
    inputs = Inputs.make(folder / "inputs")
    wholes = Wholes(folder / "wholes", inputs)
    yield (
        Trial(f"{fit.name}/{seed}", partial(chain, fit=fit, wholes=wholes, seed=seed))
        for seed in count()
        for fit in FITS
    )


def chain(folder: Path, fit: Fit, wholes: Wholes, seed: int) -> Outcome:
    """Kill a fit ``KILLS`` times, let it end, and compare it with the uninterrupted one."""
    if failure := wholes.of(fit).failure:
        return Outcome(failure=failure)
    hits, problems = interrupt(folder, fit, wholes, seed)
    return Outcome(hits, summary(problems))


def interrupt(
    folder: Path,
    fit: Fit,
    wholes: Wholes,
    seed: int,
    prepare: Callable[[Report], None] = children.nothing,
    kills: int = KILLS,
) -> tuple[int, list[str]]:
    """Kill a fit ``kills`` times and let it end; return how many kills hit it, and its differences from the whole one.

    Three of four kills hit after a random step, the others at a random moment of the run, which includes its start and
    its end. The final run must have continued: it may repeat at most ``LOST`` steps a kill.

    Args:
        folder: Empty folder for its files.
        fit: What to run.
        wholes: The uninterrupted fits.
        seed: Determines the moments.
        prepare: Called in each child before the command.
        kills: Kills before the fit may end.
    """
    whole = wholes.of(fit)
    rng = random.Random(f"{fit.name}/{seed}")
    work, argv = lay_out(folder / "work"), fit.argv(wholes.inputs)
    hits, reached = 0, 0
    for last in (*[False] * kills, True):
        child = children.start(argv, work, prepare)
        if last:
            code = child.end()
        else:
            if rng.random() < 0.75:
                child.wait_for(children.STEP, rng.randint(1, fit.steps // kills))
                child.wait_until(child.age() + rng.uniform(0, 2 * whole.seconds / fit.steps))
            else:
                child.wait_until(rng.uniform(0, 1.1 * whole.seconds))
            code = child.kill()
        if code == 0:
            break
        if code > 0 or last:
            return hits, [f"after {hits} kills, the fit ended with {code}: {children.last_line(child.log)}"]
        hits += 1
        if (work / OUTPUT).exists():  # it had finished; the same command would train anew
            return hits, differences(files(work / OUTPUT), files(whole.folder / OUTPUT))
        reached = max(0, reached - LOST) + child.steps
        if fit.name == "hsdpo-precomputed" and rng.random() < 0.3:
            shutil.rmtree(work / "logs" / "reference", ignore_errors=True)
    problems = differences(written(work), whole.findings)
    if child.steps > (most := fit.steps - max(0, reached - LOST)):
        problems.append(f"the last run took {child.steps} steps, expected at most {most}")
    return hits, problems


PART = Part(
    "kills",
    "`kill -9` in training, then the same command: bit-identical weights, optimizer and logs",
    200,
    "kills",
    trials,
)
