"""Time and memory of HS-DPO by number of pairs, and the overhead of a fit around its optimizer steps.

    python benchmarks/growth.py --json benchmarks/results/growth.json
    python benchmarks/growth.py --overhead --json benchmarks/results/overhead.json
    python benchmarks/growth.py --quick

Growth: one epoch of configs/hsdpo.yaml, set up by the command line like any fit, with a precomputed reference, on a
tiny network (hidden size 64, two layers) and short synthetic requests with four outputs each. Each number of pairs runs
in a separate process. Peak memory is that of the process in each phase of the fit. From 1,000 to 100,000 pairs, the
largest peak of a fit must grow by less than 50 MB.

Overhead: the same fit on real pairs and a larger network (--hidden, --layers, --vocabulary), with data loading, logger
and callbacks, alternating with a bare loop over the same prepared batches with the same loss function, backward pass,
clipping and optimizer. Both must have equal losses. The overhead is the share of the fit's step time that the loop does
not need. The first step of each, and everything before and after the steps, is not counted.
"""

import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from peers import flags, machine
from peers.job import Fit
from peers.pair_files import make_tiny_base, write_real, write_synthetic
from peers.process import allocator_settings, run
from peers.result_file import run_and_write, settings

MAX_OVERHEAD = 0.05
"""Target: largest share of a fit's step time that may be overhead."""

MAX_MEMORY_MB = 50
"""Target: largest growth of a fit's peak memory from ``TARGET_PAIRS[0]`` to ``TARGET_PAIRS[1]`` pairs."""
TARGET_PAIRS = (1_000, 100_000)

QUICK = flags.QUICK | {"pairs": [100, 200], "real_pairs": 8, "batch": 4, "epochs": 2}


def main() -> None:
    """Measure growth, or overhead with ``--overhead``."""
    parser = flags.shared(__doc__)
    parser.set_defaults(allocator="system")  # the other settings never return memory to the system
    parser.add_argument(
        "--pairs", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="numbers of synthetic pairs"
    )
    parser.add_argument("--overhead", action="store_true", help="measure the overhead instead")
    parser.add_argument("--real-pairs", type=int, default=32, help="real pairs for --overhead")
    parser.add_argument("--batch", type=int, default=8, help="real pairs per optimizer step")
    parser.add_argument("--epochs", type=int, default=3, help="epochs over the real pairs in each run")
    arguments = flags.checked(parser, QUICK, ("pairs", "real_pairs", "batch", "epochs"))
    if arguments.overhead and arguments.epochs == 1 and arguments.real_pairs <= arguments.batch:
        parser.error("--real-pairs must be above --batch, or --epochs above 1: the first optimizer step is not timed")
    measure = overhead if arguments.overhead else growth
    run_and_write(arguments, lambda folder: measure(arguments, folder) | environment(arguments))


def growth(arguments: Namespace, folder: Path) -> dict[str, Any]:
    """Fit on each number of pairs; print and return the measurements."""
    make_tiny_base(folder / "base")
    sizes = []
    for count in sorted(arguments.pairs):
        run_folder = folder / str(count)
        run_folder.mkdir()
        write_synthetic(run_folder / "pairs", count)
        job = Fit(
            "peers.fit_phases",
            str(folder / "base"),
            str(run_folder / "pairs"),
            str(run_folder),
            ["--data.epochs", "1"],
            arguments.threads,
        )
        sizes.append(per_pair(run(job, allocator_settings(arguments.allocator))))
        print(line(sizes[-1]), flush=True)
        shutil.rmtree(run_folder)
    result = {"comparison": "growth", "sizes": sizes, **change(sizes)}
    print(
        f"from {sizes[0]['pairs']:,} to {sizes[-1]['pairs']:,} pairs: time per pair × {result['time_a_pair']:.2f}, "
        f"peak memory {result['memory_mb']:+,.0f} MB" + verdict(result["met"], f"target below {MAX_MEMORY_MB} MB")
    )
    return result


def per_pair(size: dict[str, Any]) -> dict[str, Any]:
    """Return the measurements of one size with the microseconds per pair of each phase."""
    return {**size, "microseconds": {phase: 1e6 * s / size["pairs"] for phase, s in size["seconds"].items()}}


def change(sizes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the ratio of time per pair and the difference of peak memory (MB) between largest and smallest size.

    The target of memory, and whether it is met, are None unless the sizes are those of the target.
    """
    first, last = sizes[0], sizes[-1]
    memory_mb = max(last["peak_mb"].values()) - max(first["peak_mb"].values())
    has_target = (first["pairs"], last["pairs"]) == TARGET_PAIRS
    return {
        "time_a_pair": sum(last["microseconds"].values()) / sum(first["microseconds"].values()),
        "memory_mb": memory_mb,
        "target": MAX_MEMORY_MB if has_target else None,
        "met": memory_mb < MAX_MEMORY_MB if has_target else None,
    }


def verdict(met: bool | None, target: str) -> str:
    """Return the end of a line that says whether a target is met; "" without a target."""
    return "" if met is None else f"; {target}: {'met' if met else 'missed'}"


def line(size: dict[str, Any]) -> str:
    """Return the line that is printed for one size."""
    parts = ", ".join(
        f"{part} {size['seconds'][part]:.1f} s ({size['microseconds'][part]:,.0f} µs per pair, "
        f"peak {size['peak_mb'][part]:,.0f} MB)"
        for part in size["seconds"]
    )
    return f"{size['pairs']:>9,} pairs: {parts}"


def overhead(arguments: Namespace, folder: Path) -> dict[str, Any]:
    """Alternate fits and bare loops; print and return the overhead."""
    write_real(folder / "pairs", folder / "base", arguments.predictions, arguments)
    fit_flags = ["--recipe.hsdpo_batch_size", arguments.batch, "--data.epochs", arguments.epochs]
    fit_flags += ["--recipe.max_length", arguments.limit]
    job = Fit(
        "peers.overhead",
        str(folder / "base"),
        str(folder / "pairs"),
        str(folder),
        list(map(str, fit_flags)),
        arguments.threads,
        arguments.repeats,
    )
    measured = run(job, allocator_settings(arguments.allocator))
    shares = overhead_share(measured["fit"], measured["bare"], not arguments.quick)
    result = {"comparison": "overhead", **measured, **shares}
    print(
        f"overhead: {100 * result['median']:.1f} % of the step time ({100 * result['min']:.1f} to "
        f"{100 * result['max']:.1f} %), over {len(measured['fit'])} runs of {measured['steps']} steps"
        + verdict(result["met"], f"target below {100 * MAX_OVERHEAD:.0f} %")
    )
    return result


def overhead_share(fits: Sequence[float], loops: Sequence[float], has_target: bool) -> dict[str, Any]:
    """Return the share of the fit's step time that the bare loop does not need: median and range over runs.

    Args:
        fits: Seconds of the steps of each fit.
        loops: Seconds of the steps of each bare loop, one per fit.
        has_target: Whether to compare the median with the target.
    """
    shares = [1 - loop / fit for fit, loop in zip(fits, loops, strict=True)]
    target = MAX_OVERHEAD if has_target else None
    met = median(shares) < MAX_OVERHEAD if has_target else None
    return {"median": median(shares), "min": min(shares), "max": max(shares), "target": target, "met": met}


def environment(arguments: Namespace) -> dict[str, Any]:
    """Return settings, machine and versions, on which the results depend."""
    return {
        "settings": settings(arguments),
        "machine": machine.describe("cpu", arguments.threads),
        "allocator": allocator_settings(arguments.allocator) or "system",
        "versions": machine.versions(),
    }


if __name__ == "__main__":
    main()
