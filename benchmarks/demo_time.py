"""Times `make demo` by stage, beside that of an earlier commit.

    python benchmarks/demo_time.py --against c06a25d --json benchmarks/results/demo.json

Each run starts from a fresh clone and uses the packages of this interpreter; the runs of both commits alternate, and
medians are shown. A stage lasts from the end of the one before it until its manifest is written. The second fit is
``fit --config configs/hsdpo.yaml`` after the demo, when all that it needs is there.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from peers.flags import positive_int
from peers.machine import describe, versions
from peers.process import MeasurementFailed, last_message
from peers.result_file import run_and_write, settings, write_result

ROOT = Path(__file__).parents[1]
SECOND_FIT = "second fit"
TARGETS = {"demo": 0.35, SECOND_FIT: 0.5}
"""Bounds of the time now as a share of the time before."""


def main() -> None:
    """Run the measurements, print the table, and write it if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="the earlier commit")
    parser.add_argument("--commit", default="HEAD", help="the commit to compare with it (default HEAD)")
    parser.add_argument("--repository", type=Path, default=ROOT, help="repository of both (default: this one)")
    parser.add_argument("--repeats", type=positive_int, default=3, help="runs of each commit (default 3)")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    run_and_write(arguments, lambda folder: measure(arguments, folder))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the demo of both commits in alternation and return the result, which is also written after each repeat."""
    commits = {"now": arguments.commit, "before": arguments.against}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commits}
    result: dict[str, Any] = {}
    for number in range(arguments.repeats):
        for name, commit in commits.items():
            stages = time_demo(clone(arguments.repository, commit, folder / f"{name}-{number}"))
            runs[name].append(stages)
            print(f"run {number + 1} of {arguments.repeats}, {name}: {_line(stages)}", flush=True)
        result = _result(runs, arguments)
        if arguments.json:
            write_result(arguments.json, result)
    for what, ratio in result["ratios"].items():
        print(f"{what}, now / before: {ratio['median']:.2f} (target {ratio['target']})")
    return result


def _result(runs: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "comparison": "demo",
        "runs": runs,
        "ratios": {what: _ratio(runs, what) for what in TARGETS},
        "settings": settings(arguments),
        "machine": describe("cpu", os.cpu_count() or 1),
        "allocator": "system",
        "versions": versions() | {"commit": described(arguments.repository, arguments.commit)},
    }


def clone(repository: Path, commit: str, folder: Path) -> Path:
    """Clone a repository, check a commit out, and return the folder.

    Raises:
        MeasurementFailed: git failed, for example because there is no such commit.
    """
    git = ("git", "-c", "advice.detachedHead=false")
    for words in (("clone", "--quiet", str(repository), str(folder)), ("-C", str(folder), "checkout", "-q", commit)):
        done = subprocess.run([*git, *words], capture_output=True, text=True)
        if done.returncode:
            raise MeasurementFailed(f"{commit}: {(done.stderr.strip() or 'git failed').splitlines()[-1]}")
    return folder


def described(repository: Path, commit: str) -> str:
    """Return short hash and date of a commit."""
    git = ("git", "-C", str(repository), "log", "-1", "--format=%h of %cs", commit)
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()


def time_demo(folder: Path) -> dict[str, float]:
    """Run the commands of ``make demo``, then the second fit, and return the seconds of each stage or command."""
    environment = Path(sys.prefix)
    options = ("--dry-run", "--no-print-directory", f"--assume-old={environment}/installed")
    make = ("make", *options, "demo", f"VENV={environment}")
    listed = subprocess.run(make, cwd=folder, capture_output=True, text=True)
    if listed.returncode:
        raise MeasurementFailed(f"{folder}: make demo: {listed.stderr.strip()}")
    commands = [shlex.split(line) for line in listed.stdout.splitlines()]
    stages: dict[str, float] = {}
    for argv in commands:
        stages |= _timed(argv, folder)
    return stages | {SECOND_FIT: sum(_timed(commands[0], folder).values())}


def _timed(argv: Sequence[str], folder: Path) -> dict[str, float]:
    """Run a command and return the seconds of the stages that it has made; of the command itself if it made none."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    start = time.time()
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True)
    end = time.time()
    if done.returncode:
        last = last_message(done.stderr) or last_message(done.stdout) or "no message"
        raise MeasurementFailed(f"{shlex.join(argv[1:])}: exit code {done.returncode}: {last}")
    written = {path: path.stat().st_mtime for path in folder.rglob("*manifest.json")}
    made = sorted((when, path) for path, when in written.items() if when >= start)
    verb = next(word for word in argv[3:] if not word.startswith("-"))
    if not made:
        return {verb: end - start}
    ends = [when for when, _ in made[:-1]] + [end]
    stages: dict[str, float] = {}
    for (_, path), begin, finish in zip(made, [start, *ends[:-1]], ends, strict=True):
        name = str(path.parent.relative_to(folder))  # a stage may write several manifests
        stages[name] = stages.get(name, 0.0) + finish - begin
    return stages


def _ratio(runs: Mapping[str, Sequence[Mapping[str, float]]], what: str) -> dict[str, Any]:
    """Return the time now as a share of the time before, of the demo or of the second fit."""
    now, before = ([_seconds(stages, what) for stages in runs[name]] for name in ("now", "before"))
    shares = [a / b for a, b in zip(now, before, strict=True)]
    target = TARGETS[what]
    value = median(now) / median(before)
    return {"median": value, "min": min(shares), "max": max(shares), "target": target, "met": value <= target}


def _seconds(stages: Mapping[str, float], what: str) -> float:
    if what == SECOND_FIT:
        return stages[SECOND_FIT]
    return sum(stages.values()) - stages[SECOND_FIT]


def _line(stages: Mapping[str, float]) -> str:
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items())
    return f"{_seconds(stages, 'demo'):.1f} s ({parts})"


if __name__ == "__main__":
    main()
