"""Runs the trials of a part that have no result yet."""

import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from peers import machine

from reliability.journal import Journal, Result
from reliability.part import Outcome, Part, Trial

ROOT = Path(__file__).parents[2]


def run(part: Part, journal: Journal, target: int | None, keep: Path | None) -> bool:
    """Run the trials of a part that the journal lacks, until its target is reached.

    Args:
        part: The part.
        journal: Its results.
        target: Number to reach; None takes the part's own.
        keep: Folder for the files of failed trials; None deletes them.

    Returns:
        Whether the target is reached without a failure.
    """
    goal = part.target if target is None else target
    try:
        _run_missing(part, journal, goal, keep)
    except Exception as error:
        print(f"{part.name}: cannot be run: {type(error).__name__}: {error}", flush=True)
        return False
    results = journal.results()
    failures = [result for result in results if result.failure is not None]
    done = sum(result.count for result in results)
    print(f"{part.name}: {done} of {goal or done} {part.unit}, {len(failures)} trials failed", flush=True)
    return not failures and 0 < done >= goal


def _run_missing(part: Part, journal: Journal, goal: int, keep: Path | None) -> None:
    commit, hardware = _commit(), _machine()
    results = journal.results()
    done, finished = sum(result.count for result in results), {result.trial for result in results}
    if goal and done >= goal:
        return
    with tempfile.TemporaryDirectory(prefix="reliability-") as name, part.trials(Path(name)) as trials:
        for trial in trials:
            if trial.name in finished:
                continue
            started = time.monotonic()
            outcome = _attempt(trial, Path(name, "trial"), keep and keep / part.name)
            seconds = round(time.monotonic() - started, 1)
            date = f"{datetime.now(UTC):%Y-%m-%d}"
            count = max(outcome.count, 1) if outcome.failure else outcome.count
            journal.add(Result(trial.name, count, outcome.failure, outcome.note, seconds, date, commit, hardware))
            shown = " ".join((outcome.failure or outcome.note or "passed").split())
            print(f"{part.name}: {trial.name}: {shown} ({seconds} s)", flush=True)
            done += count
            if goal and done >= goal:
                return


def _attempt(trial: Trial, folder: Path, keep: Path | None) -> Outcome:
    """Run a trial in a folder of its own. An error of the trial itself is a failure, never the end of the campaign."""
    folder.mkdir()
    try:
        outcome = trial.run(folder)
    except Exception as error:
        outcome = Outcome(failure=f"{type(error).__name__}: {error}")
    if outcome.failure is not None and keep is not None:
        shutil.copytree(folder, keep / trial.name.replace("/", "-"), symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(folder)
    return outcome


def _commit() -> str:
    """Return the short commit, with "+" if the code differs from it."""
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return "unknown"
    changes = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "guardreasoner", "configs"])
    return head.stdout.strip() + ("+" if changes.returncode else "")


def _machine() -> str:
    described = machine.describe("cpu", 1)
    return f"{described['processor']}, {described['cores']} cores, {described['memory_gb']} GB, {described['system']}"
