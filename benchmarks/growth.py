"""How HS-DPO grows with its pairs, and what everything around its step costs.

    python benchmarks/growth.py --json benchmarks/results/growth.json
    python benchmarks/growth.py --overhead --json benchmarks/results/overhead.json
    python benchmarks/growth.py --quick

Growth: one epoch of configs/hsdpo.yaml, made by the command line as a user's fit is, with a precomputed reference, on a
tiny network (hidden size 64, two layers) and short made requests, four outputs each. Each number of pairs runs in
a process of its own. Peak memory is that of the process, told for each part of the fit.

Overhead: the same fit on real pairs and a larger network (--hidden, --layers, --vocabulary), with its logger, callbacks
and loading of data, in turn with a bare loop over the same ready batches: same loss function, backward pass, clipping,
optimizer. Both must have the same losses. The share is what the fit's steps take beyond the loop's. The first step of
each, and what a fit does once before and after its steps, is not counted.
"""

import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from peers import flags, machine
from peers.job import Fit
from peers.outcome import outcome, settings
from peers.pair_files import make_tiny_base, write_made, write_real
from peers.process import allocator_settings, run

MOST_OVERHEAD = 0.05
"""Share of a fit's step that everything around it may take."""

QUICK = flags.QUICK | {"pairs": [100, 200], "real_pairs": 8, "batch": 4, "epochs": 2}


def main() -> None:
    """Measure what the flags ask for."""
    parser = flags.shared(__doc__)
    parser.set_defaults(allocator="system")  # as a user's fit has it; the others never give memory back
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="numbers of made pairs")
    parser.add_argument("--overhead", action="store_true", help="measure what everything around the step costs instead")
    parser.add_argument("--real-pairs", type=int, default=32, help="of the overhead")
    parser.add_argument("--batch", type=int, default=8, help="real pairs an optimizer step")
    parser.add_argument("--epochs", type=int, default=3, help="over the real pairs, in each run")
    arguments = flags.checked(parser, QUICK, ("real_pairs", "batch", "epochs"))
    if min(arguments.pairs) < 1:
        parser.error("--pairs must be at least 1")
    measure = overhead if arguments.overhead else growth
    outcome(arguments, lambda folder: measure(arguments, folder) | about(arguments))


def growth(arguments: Namespace, folder: Path) -> dict[str, Any]:
    """Fit on each number of pairs; show and return the figures."""
    make_tiny_base(folder / "base")
    sizes = []
    for count in sorted(arguments.pairs):
        own = folder / str(count)
        own.mkdir()
        write_made(own / "pairs", count)
        job = Fit(
            "peers.growing",
            str(folder / "base"),
            str(own / "pairs"),
            str(own),
            ["--data.epochs", "1"],
            arguments.threads,
        )
        sizes.append(per_pair(run(job, allocator_settings(arguments.allocator))))
        print(line(sizes[-1]), flush=True)
        shutil.rmtree(own)
    found = {"comparison": "growth", "sizes": sizes, **grown(sizes)}
    print(
        f"from {sizes[0]['pairs']:,} to {sizes[-1]['pairs']:,} pairs: time a pair × {found['time_a_pair']:.2f}, "
        f"peak memory {found['memory_mb']:+,.0f} MB"
    )
    return found


def per_pair(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one size, with microseconds a pair."""
    return {**found, "microseconds": {part: 1e6 * s / found["pairs"] for part, s in found["seconds"].items()}}


def grown(sizes: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return how time a pair and peak memory (MB) change from the smallest to the largest size."""
    first, last = sizes[0], sizes[-1]
    return {
        "time_a_pair": sum(last["microseconds"].values()) / sum(first["microseconds"].values()),
        "memory_mb": max(last["peak_mb"].values()) - max(first["peak_mb"].values()),
    }


def line(size: dict[str, Any]) -> str:
    """Return the line of one size."""
    parts = ", ".join(
        f"{part} {size['seconds'][part]:.1f} s ({size['microseconds'][part]:,.0f} µs a pair, "
        f"peak {size['peak_mb'][part]:,.0f} MB)"
        for part in size["seconds"]
    )
    return f"{size['pairs']:>9,} pairs: {parts}"


def overhead(arguments: Namespace, folder: Path) -> dict[str, Any]:
    """Run fits and bare loops in turn; show and return the share of what is around the step."""
    write_real(folder / "pairs", folder / "base", arguments.predictions, arguments)
    words = ["--recipe.hsdpo_batch_size", arguments.batch, "--data.epochs", arguments.epochs]
    words += ["--recipe.max_length", arguments.limit]
    job = Fit(
        "peers.overhead",
        str(folder / "base"),
        str(folder / "pairs"),
        str(folder),
        list(map(str, words)),
        arguments.threads,
        arguments.repeats,
    )
    found = run(job, allocator_settings(arguments.allocator))
    result = {"comparison": "overhead", **found, **share(found["fit"], found["bare"], not arguments.quick)}
    print(
        f"around the step: {100 * result['median']:.1f} % of it ({100 * result['min']:.1f} to "
        f"{100 * result['max']:.1f} %), over {len(found['fit'])} runs of {found['steps']} steps"
        + ("" if result["met"] is None else f"; wanted below {100 * MOST_OVERHEAD:.0f} %: ")
        + {None: "", True: "met", False: "missed"}[result["met"]]
    )
    return result


def share(fits: Sequence[float], loops: Sequence[float], judged: bool) -> dict[str, Any]:
    """Return the part of the fit's seconds that the bare loop does without: median, least and largest over runs.

    Args:
        fits: seconds of each fit's steps.
        loops: seconds of each loop's, as many.
        judged: whether the median is held against what is wanted.
    """
    each = [1 - loop / fit for fit, loop in zip(fits, loops, strict=True)]
    wanted = MOST_OVERHEAD if judged else None
    met = median(each) < MOST_OVERHEAD if judged else None
    return {"median": median(each), "min": min(each), "max": max(each), "target": wanted, "met": met}


def about(arguments: Namespace) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "settings": settings(arguments),
        "machine": machine.describe("cpu", arguments.threads),
        "allocator": allocator_settings(arguments.allocator) or "system",
        "versions": machine.versions(),
    }


if __name__ == "__main__":
    main()
