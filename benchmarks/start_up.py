"""Measures how long commands take to start, in seconds of processor time on one thread.

    python benchmarks/start_up.py --json benchmarks/results/start-up.json

Imports: new processes that import torch alone, import LightningCLI with all that ``fit`` needs, and parse and check
``configs/hsdpo.yaml``; they alternate. Stages: ``run`` builds several small base models, with stages that are forks of
one process, and with a new process for each; the difference is divided by the number of stages. Processor time (user
and system, of all processes) depends less than elapsed time on what else the machine does. Medians are shown.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from peers.flags import positive_int
from peers.machine import describe, versions
from peers.result_file import run_and_write, settings

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "guardreasoner")
PROGRAMS = {
    "import torch": (sys.executable, "-c", "import torch"),
    "imports of fit": (
        sys.executable,
        "-c",
        "from guardreasoner.cli.main import import_lightning_cli as load\n"
        "from guardreasoner.cli.deferred_imports import defer_imports\ndefer_imports()\nload()",
    ),
    "fit --print_config": (*COMMAND, "fit", "--config", "configs/hsdpo.yaml", "--print_config"),
}
TARGET = 1.7
"""Bound of the imports of fit, as a multiple of ``import torch``."""

SMALL = "{vocabulary: 300, hidden_size: 16, intermediate_size: 16, heads: 2}"
RUN = """
import sys
from guardreasoner.cli.commands.run import configure, run
import argparse
parser = argparse.ArgumentParser()
configure(parser)
launcher = (sys.executable, *sys.argv[1].split(), "-m", "guardreasoner")
sys.exit(run(parser.parse_args(["--config", sys.argv[2]]), launcher))
"""
LAUNCHERS = {"forks of one process": "", "a new process each": "-B"}
"""Flags of Python for the stages; only those of the default launcher are forks."""


def main() -> None:
    """Run the measurements, print the table, and write it if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repeats", type=positive_int, default=3, help="rounds of alternating measurements (default 3)"
    )
    parser.add_argument("--stages", type=positive_int, default=3, help="stages of the chain (default 3)")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    run_and_write(arguments, lambda folder: measure(arguments, folder))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the measurements and return the result."""
    seconds: dict[str, list[float]] = {name: [] for name in (*PROGRAMS, *LAUNCHERS)}
    for number in range(arguments.repeats):
        programs = dict(PROGRAMS)
        for name, flags in LAUNCHERS.items():
            pipeline = write_chain(folder / f"{number} {flags}", arguments.stages)
            programs[name] = (sys.executable, "-c", RUN, flags, str(pipeline))
        for name, argv in programs.items():
            seconds[name].append(processor_seconds(argv))
            print(f"run {number + 1} of {arguments.repeats}: {name:<24}{seconds[name][-1]:>8.2f} s", flush=True)
    ratios = [fit / torch for fit, torch in zip(seconds["imports of fit"], seconds["import torch"], strict=True)]
    forks, plain = (median(seconds[name]) for name in LAUNCHERS)
    ratio = median(ratios)
    saved = (plain - forks) / arguments.stages
    print(f"imports of fit / import torch: {ratio:.2f} (target {TARGET}); saved per stage: {saved:.2f} s")
    return {
        "comparison": "start-up",
        "seconds": seconds,
        "ratio": {"median": ratio, "min": min(ratios), "max": max(ratios)},
        "saved_per_stage": saved,
        "target": TARGET,
        "met": ratio <= TARGET,
        "settings": settings(arguments),
        "machine": describe("cpu", 1),
        "allocator": "system",
        "versions": versions(),
    }


def write_chain(folder: Path, stages: int) -> Path:
    """Write a pipeline of small base models and return its file."""
    folder.mkdir()
    small = folder / "small.yaml"
    small.write_text(SMALL)
    command = "base-model --config configs/base.yaml --config '{small}' --output '{folder}/{number}'"
    lines = {str(n): command.format(small=small, folder=folder, number=n) for n in range(stages)}
    pipeline = folder / "pipeline.yaml"
    pipeline.write_text(json.dumps({"stages": lines}))
    return pipeline


def processor_seconds(argv: Sequence[str]) -> float:
    """Return the processor time that a program and its children take, on one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, cwd=ROOT, env={**os.environ, **threads}, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


if __name__ == "__main__":
    main()
