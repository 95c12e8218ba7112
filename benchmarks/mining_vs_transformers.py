"""Sampling k outputs a prompt against generate() of transformers: same weights, prompts, lengths, threads, allocator.

    python benchmarks/mining_vs_transformers.py --json benchmarks/results/mining.json
    python benchmarks/mining_vs_transformers.py --quick

Prompts are real ones, and each output is as long as a real one, which neither side knows ahead (peers/generation.py
says how); temperature is 1.0 and the whole distribution is sampled from. First both sides answer some prompts greedily
in fp32: their texts must be equal. Then each side's best number of outputs at once is searched, with the prompts sorted
by length for both. Those run in turn, each in a process of its own, after a few tokens to warm up. Loading is not
counted.
"""

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from peers import flags, machine
from peers.job import Sampling
from peers.outcome import outcome, settings
from peers.process import Failed, allocator_settings, run
from peers.ratios import Target, in_turn, ratio
from peers.real_prompts import prepare
from peers.table import verdict

from guardreasoner.errors import InputError

CHECKED, CHECKED_TOKENS = 8, 64
"""Prompts that both sides answer greedily, and the tokens of each answer."""

QUICK = flags.QUICK | {"prompts": 4, "batches": [8], "max_new_tokens": 256}


@dataclass(frozen=True)
class Candidate:
    """Settings of one side.

    Args:
        name: what the tables call them.
        job: the run.
    """

    name: str
    job: Sampling


def main() -> None:
    """Run the comparison that the flags ask for."""
    parser = flags.shared(__doc__)
    flags.add_device(parser)
    parser.add_argument("--prompts", type=int, default=64, help="prompts that are answered")
    parser.add_argument("--k", type=int, default=4, help="outputs a prompt")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="longest output; longer ones are left out")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128], help="outputs at once to search over"
    )
    arguments = flags.checked(parser, QUICK, ("prompts", "k", "max_new_tokens"))
    outcome(arguments, lambda folder: compare(arguments, folder))


def compare(arguments: Namespace, folder: Path) -> dict[str, Any]:
    """Compare greedy texts, search, time, and return what is written as JSON."""
    allocator = allocator_settings(arguments.allocator)
    paths = prepare(folder, arguments.predictions, arguments)
    rows = json.loads(Path(paths["prompts"]).read_text())
    job = Sampling(
        side="both",
        model=paths["model"],
        prompts=paths["prompts"],
        k=arguments.k,
        max_new_tokens=CHECKED_TOKENS,
        checked=CHECKED,
        device=arguments.device,
        threads=arguments.threads,
    )
    equal = require_same_texts(*run(job, allocator)["texts"])
    print(f"greedy texts: {equal} of {equal} are equal over {CHECKED_TOKENS} tokens", flush=True)
    job = replace(job, max_new_tokens=arguments.max_new_tokens, dtype=arguments.dtype)

    def measure(choice: Candidate) -> dict[str, Any]:
        return rates(run(choice.job, allocator))

    print("settings of transformers", flush=True)
    other, tried = search(choices(replace(job, side="transformers"), arguments.batches), measure)
    print("our settings", flush=True)
    own, own_tried = search(choices(replace(job, side="ours"), arguments.batches), measure)
    print("in turn", flush=True)
    runs = in_turn([own, other], arguments.repeats, measure, line)
    wanted = [] if arguments.quick or arguments.device != "cpu" else [Target("speed", "best", 2.0)]
    found = {
        "comparison": "mining",
        "settings": settings(arguments),
        "prompts": {
            "prompt_tokens": median(len(row["prompt"]) for row in rows),
            "output_tokens": median(length for row in rows for length in row["lengths"]),
            "longest_output": max(length for row in rows for length in row["lengths"]),
        },
        "machine": machine.describe(arguments.device, arguments.threads),
        "allocator": allocator or "system",
        "versions": machine.versions(),
        "equal_texts": equal,
        "search": tried,
        "own_search": own_tried,
        "rows": [{"name": choice.name, **summary(runs[choice.name])} for choice in (own, other)],
        "ratios": [
            ratio(what, "best", column(runs[own.name], name), column(runs[other.name], name), wanted)
            for what, name in (("speed", "tokens_per_second"), ("memory", "memory_mb"))
        ],
    }
    print(table(found))
    return found


def require_same_texts(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return how many texts are equal.

    Raises:
        InputError: not all are, so that no speed could be compared.
    """
    differ = [place for place, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    if differ:
        raise InputError(f"{len(differ)} of {len(ours)} greedy texts differ, that of prompt {differ[0]} first")
    return len(ours)


def choices(job: Sampling, sizes: Sequence[int]) -> list[Candidate]:
    """Return a side with several numbers of outputs at once."""
    return [Candidate(f"{job.side}: {size} outputs at once", replace(job, at_once=size)) for size in sizes]


def search(
    choices: Sequence[Candidate], measure: Callable[[Candidate], dict[str, Any]]
) -> tuple[Candidate, list[dict[str, Any]]]:
    """Return the fastest settings, and a line for each that was tried; a single one is not tried.

    Raises:
        InputError: none of them ran.
    """
    if len(choices) == 1:
        return choices[0], []
    tried, speeds = [], {}
    for choice in choices:
        try:
            found = measure(choice)
        except Failed as error:
            print(f"  {choice.name:<36} failed: {error}", flush=True)
            tried.append({"name": choice.name, "failed": str(error)})
            continue
        print(line(choice.name, found), flush=True)
        tried.append({"name": choice.name, **found})
        speeds[choice] = found["tokens_per_second"]
    if not speeds:
        raise InputError("none of these settings ran; see the lines above")
    return max(speeds, key=lambda choice: speeds[choice]), tried


def rates(found: dict[str, Any]) -> dict[str, float]:
    """Return the figures of one run: all tokens and records over the seconds, and the memory of the run alone."""
    return {
        "tokens_per_second": found["tokens"] / found["seconds"],
        "records_per_second": found["records"] / found["seconds"],
        "memory_mb": found["peak_mb"] - found["before_mb"],
        "peak_mb": found["peak_mb"],
    }


def column(runs: Sequence[dict[str, float]], name: str) -> list[float]:
    """Return a figure of each run."""
    return [run[name] for run in runs]


def summary(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure over some runs, and the range of the speed."""
    speeds = column(runs, "tokens_per_second")
    medians = {name: median(column(runs, name)) for name in runs[0]}
    return {**medians, "slowest": min(speeds), "fastest": max(speeds), "runs": len(runs)}


def line(name: str, found: dict[str, Any]) -> str:
    """Return the line of one run."""
    return f"  {name:<36} {found['tokens_per_second']:9,.0f} tokens/s, {found['memory_mb']:7,.0f} MB"


def table(found: dict[str, Any]) -> str:
    """Return the table of the comparison."""
    lines = [f"\n  {'':<36} {'tokens/s':>9} {'records/s':>10} {'memory':>9} {'process':>9}"]
    lines += [
        f"  {row['name']:<36} {row['tokens_per_second']:9,.0f} {row['records_per_second']:10.2f} "
        f"{row['memory_mb']:6,.0f} MB {row['peak_mb']:6,.0f} MB"
        for row in found["rows"]
    ]
    lines += [
        f"  {ratio['what']} against transformers: {ratio['median']:.2f} × "
        f"({ratio['min']:.2f}–{ratio['max']:.2f}){verdict(ratio)}"
        for ratio in found["ratios"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
