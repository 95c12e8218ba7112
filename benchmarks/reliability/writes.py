"""Fits that are killed with SIGKILL at one of their file operations, while a checkpoint or a model is written.

Every child has the same process id, as the first process of a container has. In half of the trials the system's temp
folder is on another file system, and in a third a finished model lies at the output already.
"""

import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from reliability import children
from reliability.children import Report
from reliability.fits import (
    EVERY,
    FITS,
    OUTPUT,
    Fit,
    Inputs,
    Whole,
    Wholes,
    differences,
    files,
    lay_out,
    summary,
    written,
)
from reliability.part import Outcome, Part, Trial

WRITES = tuple(
    Fit(fit.name, fit.stage, fit.flags, epochs=2, model=fit.model)
    for fit in FITS
    if fit.name in ("rsft", "hsdpo-frozen-adapter", "hsdpo-precomputed")
)
OPERATION = b"f"
REACHED = b"k"
MAX_DELAY = 0.003
"""Seconds after the start of the operation within which the kill hits."""
OTHER_FILE_SYSTEM = Path("/dev/shm")
_PROCESS_ID = 4711
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


@contextmanager
def trials(folder: Path) -> Iterator[Iterable[Trial]]:
    """Yield one kill a trial, for each kind of fit, then again with the next seed."""
    children.preload()
    wholes = Wholes(folder / "wholes", Inputs.make(folder / "inputs"), watch(folder))
    yield (
        Trial(f"{fit.name}/{seed}", partial(kill_while_writing, fit=fit, wholes=wholes, seed=seed))
        for seed in count()
        for fit in WRITES
    )


def watch(root: Path, stop_at: int | None = None, wait: bool = False) -> Callable[[Report], None]:
    """Return what makes a child report its file operations.

    Args:
        root: Operations on files outside this folder are not reported.
        stop_at: Number of the operation, from 1, that is also reported as ``REACHED``.
        wait: Whether the child then waits to be killed before the operation, instead of going on.
    """

    def prepare(report: Report) -> None:
        number = 0
        os.getpid = lambda: _PROCESS_ID
        roots = (str(root), tempfile.gettempdir()) if "TMPDIR" in os.environ else (str(root),)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal number
            if not _changes(event, arguments, roots):
                return
            number += 1
            report(OPERATION)
            if number == stop_at:
                report(REACHED)
                if wait:
                    time.sleep(600)

        sys.addaudithook(hook)

    return prepare


def kill_while_writing(folder: Path, fit: Fit, wholes: Wholes, seed: int) -> Outcome:
    """Kill a fit at one file operation, then run the command again until it ends.

    A model at the output must be whole after the kill, the second run must continue at a checkpoint, its results must
    be those of the uninterrupted fit, and it must leave no file behind that the uninterrupted one does not.
    """
    whole = wholes.of(fit)
    if whole.failure:
        return Outcome(failure=whole.failure)
    rng = random.Random(f"{fit.name}/{seed}")
    work, argv = lay_out(folder / "work"), fit.argv(wholes.inputs)
    had_model = seed % 3 == 0
    if had_model:
        shutil.copytree(whole.folder / OUTPUT, work / OUTPUT)
    with _temp_folder(folder, other=seed % 2 == 1) as temp:
        environment = {"TMPDIR": str(temp)}
        # most operations before the first step prepare data; the last ones write the model
        first = whole.marks.index(children.STEP)
        before = whole.marks[:first].count(OPERATION)
        stop_at = rng.randint(before if rng.random() < 0.9 else 1, whole.marks.count(OPERATION))
        wait = rng.random() < 0.5
        child = children.start(argv, work, watch(folder, stop_at, wait), environment)
        if child.wait_for(REACHED, 1) and not wait:
            time.sleep(rng.uniform(0, MAX_DELAY))
        if (code := child.kill()) >= 0:
            if code == 0:  # it had fewer operations than the uninterrupted fit, or ended within the delay
                return Outcome(0)
            return Outcome(0, f"the fit ended with {code}: {children.last_line(child.log)}")
        reached = child.steps
        had_ended = (work / OUTPUT).exists() and not had_model
        problems = _unreadable(work, whole, had_model)
        child = children.start(argv, work, watch(folder), environment)
        if code := child.end():
            return Outcome(1, f"after the kill, the fit ended with {code}: {children.last_line(child.log)}")
        problems += _leftovers(work, whole.folder, temp)
    if had_ended:
        problems += differences(files(work / OUTPUT), files(whole.folder / OUTPUT))
    else:
        problems += differences(written(work), whole.findings)
        # a kill while a checkpoint is written may cost that checkpoint
        if not had_model and child.steps > (most := fit.steps - max(0, reached - 2 * EVERY)):
            problems.append(f"the second run took {child.steps} steps, expected at most {most}")
    return Outcome(1, summary(problems))


@contextmanager
def _temp_folder(folder: Path, other: bool) -> Iterator[Path]:
    parent = OTHER_FILE_SYSTEM if other and OTHER_FILE_SYSTEM.is_dir() else folder
    with tempfile.TemporaryDirectory(prefix="temp-", dir=parent) as name:
        yield Path(name)


def _changes(event: str, arguments: tuple[Any, ...], roots: tuple[str, ...]) -> bool:
    """Return whether an audit event is a change of a file or folder below one of the roots."""
    if event == "open":
        path, _, flags = arguments
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
            return False
    elif event in _CHANGES:
        path = arguments[0]
    else:
        return False
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    return os.path.abspath(os.fsdecode(path)).startswith(roots)


def _unreadable(work: Path, whole: Whole, had_model: bool) -> list[str]:
    """Return what is wrong with the model at the output after a kill: none may be there, or a whole one.

    An unfinished manifest may lie in it, which the second run replaces with the folder.
    """
    output = work / OUTPUT
    if output.exists():
        lines = differences(files(output), files(whole.folder / OUTPUT))
        return [f"after the kill, {line}" for line in lines if not line.startswith(".manifest.json.")]
    hidden = [path for path in work.glob(f".{OUTPUT}*") if path.is_dir()]
    expected = files(whole.folder / OUTPUT)
    if had_model and not any(not differences(files(path), expected) for path in hidden):
        return ["after the kill, the model that had been at the output is gone"]
    return []


def _leftovers(work: Path, reference: Path, temp: Path) -> list[str]:
    """Return the files that only the interrupted run left, in its working folder or in the temp folder."""
    extra = sorted(_names(work) - _names(reference))
    extra += [f"{temp}/{name}" for name in sorted(os.listdir(temp))]
    return [f"left behind: {name}" for name in extra]


def _names(folder: Path) -> set[str]:
    """Return the files and folders below a folder; event files, whose names hold a time, count as one per run."""
    names = set()
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if "tfevents" in path.name:
            continue
        if not relative.is_relative_to("logs/fit"):
            names.add(relative.as_posix())
    return names


PART = Part(
    "writes",
    "`kill -9` while a checkpoint or model is written, temp folder on another file system, same process id next time: "
    "readable, no leftovers, identical end",
    100,
    "kills",
    trials,
)
