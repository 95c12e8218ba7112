"""Compares sampling k outputs per prompt with generate() of transformers.

Both sides have the same weights, prompts, output lengths, threads and allocator.

    python benchmarks/mining_vs_transformers.py --json benchmarks/results/mining.json
    python benchmarks/mining_vs_transformers.py --base checkpoints/smollm2-135m/base \
        --json benchmarks/results/mining-smollm2.json
    python benchmarks/mining_vs_transformers.py --quick

Prompts are real, and each output is as long as a real one, which neither side knows in advance (see
peers/generation.py). Temperature is 1.0 without top-p. First, both sides answer some prompts greedily in fp32, and the
texts must be equal. Then the fastest batch size of each side is searched, with prompts sorted by length. The two are
timed in alternation, each in a separate process, after a short warm-up. Loading is not counted.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from peers import flags, machine
from peers.engine_runs import EngineCandidate, memory, search, summary
from peers.job import Sampling
from peers.process import allocator_settings, run
from peers.ratios import Target, in_turn, speed_and_memory
from peers.real_prompts import prepare
from peers.result_file import run_and_write, settings
from peers.table import ratio_text

from guardreasoner.errors import InputError

CHECKED, CHECKED_TOKENS = 8, 64
"""Number of prompts that both sides answer greedily, and tokens per answer."""

SPEED = "tokens_per_second"
"""Measurement by which settings are compared."""

QUICK = flags.QUICK | {"prompts": 4, "batches": [8], "max_new_tokens": 256}


def main() -> None:
    """Run the comparison."""
    parser = flags.shared(__doc__)
    flags.add_device(parser)
    flags.add_base(parser)
    parser.add_argument("--prompts", type=int, default=32, help="number of prompts")
    parser.add_argument("--k", type=int, default=4, help="outputs per prompt")
    parser.add_argument(
        "--max-new-tokens", type=int, default=512, help="longest output in tokens; longer ones are left out"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 128], help="outputs at once to search over")
    arguments = flags.checked(parser, QUICK, ("prompts", "k", "max_new_tokens", "batches"))
    run_and_write(arguments, lambda folder: compare(arguments, folder))


def compare(arguments: Namespace, folder: Path) -> dict[str, Any]:
    """Compare greedy texts, search the fastest settings, time them, and return the result for JSON."""
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

    def measure(candidate: EngineCandidate) -> dict[str, Any]:
        return rates(run(candidate.job, allocator))

    print("settings of transformers", flush=True)
    their_best, trials = search(candidates(replace(job, side="transformers"), arguments.batches), measure, SPEED, line)
    print("our settings", flush=True)
    our_best, our_trials = search(candidates(replace(job, side="ours"), arguments.batches), measure, SPEED, line)
    print("timing", flush=True)
    runs = in_turn([our_best, their_best], arguments.repeats, measure, line)
    targets = [] if arguments.quick or arguments.device != "cpu" else [Target("speed", "best", 4.0)]
    result = {
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
        "search": trials,
        "own_search": our_trials,
        "rows": [{"name": side.name, **summary(runs[side.name], SPEED)} for side in (our_best, their_best)],
        "ratios": speed_and_memory("best", runs[our_best.name], runs[their_best.name], SPEED, targets),
    }
    print(table(result))
    return result


def require_same_texts(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return the number of texts if all are equal.

    Raises:
        InputError: Some texts differ, so speeds cannot be compared.
    """
    differ = [index for index, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    if differ:
        raise InputError(f"{len(differ)} of {len(ours)} greedy texts differ, first for prompt {differ[0]}")
    return len(ours)


def candidates(job: Sampling, sizes: Sequence[int]) -> list[EngineCandidate]:
    """Return the settings of a side with several numbers of outputs per batch."""
    return [EngineCandidate(f"{job.side}: {size} outputs at once", replace(job, at_once=size)) for size in sizes]


def rates(measured: dict[str, Any]) -> dict[str, float]:
    """Return tokens and records per second, and the memory."""
    return {
        "tokens_per_second": measured["tokens"] / measured["seconds"],
        "records_per_second": measured["records"] / measured["seconds"],
        **memory(measured),
    }


def line(name: str, measured: dict[str, Any]) -> str:
    """Return the line that is printed for one run."""
    return f"  {name:<36} {measured['tokens_per_second']:9,.0f} tokens/s, {measured['memory_mb']:7,.0f} MB"


def table(result: dict[str, Any]) -> str:
    """Return the table of the comparison."""
    lines = [f"\n  {'':<36} {'tokens/s':>9} {'records/s':>10} {'memory':>9} {'process':>9}"]
    lines += [
        f"  {row['name']:<36} {row['tokens_per_second']:9,.0f} {row['records_per_second']:10.2f} "
        f"{row['memory_mb']:6,.0f} MB {row['peak_mb']:6,.0f} MB"
        for row in result["rows"]
    ]
    lines += [ratio_text(ratio, "transformers") for ratio in result["ratios"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
