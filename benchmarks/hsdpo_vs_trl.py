r"""Compares HS-DPO with TRL's DPOTrainer and its SFT loss: same weights, ids, order, optimizer, threads, allocator.

    python benchmarks/hsdpo_vs_trl.py --json benchmarks/results/hsdpo.json
    python benchmarks/hsdpo_vs_trl.py --lora --json benchmarks/results/hsdpo-lora.json
    python benchmarks/hsdpo_vs_trl.py --vocabulary 128256 --best-alone --json benchmarks/results/hsdpo-vocabulary.json
    python benchmarks/hsdpo_vs_trl.py --instruction-tokens 1500 --pairs 16 --batches 1 2 --search-steps 1 --best-alone \
        --json benchmarks/results/hsdpo-policies.json
    python benchmarks/hsdpo_vs_trl.py --quick

First, the losses of the first optimizer steps of both sides must be equal. Then the fastest settings of TRL and of our
side are searched. These and TRL's defaults are timed in alternation, each in a separate process. Pairs have no weights
because TRL does not support them. The time to precompute the reference is reported separately.

Prompts of the published pairs are short. With --instruction-tokens, each has as much text in front of it as a guard
with policies has; TRL computes it for each completion, our side once per step.
"""

from argparse import Namespace
from dataclasses import replace
from typing import Any

from peers import flags
from peers.comparison import Candidate, Comparison, compare
from peers.ratios import Target


def main() -> None:
    """Run the comparison."""
    compare("hsdpo", flags.read(__doc__), measure)


def measure(comparison: Comparison) -> dict[str, Any]:
    """Compare the losses, search the fastest settings of each side, and time them."""
    arguments = comparison.arguments
    print("losses", flush=True)
    plain = theirs(1)
    losses = [comparison.losses("micro-batch 1", ours(arguments, 1), plain)]
    print("TRL's settings", flush=True)
    sizes = [
        theirs(size, order)
        for size in arguments.batches
        for order in ("steps", "length")
        if size > 1 or order == "steps"
    ]
    best, trials = comparison.search(sizes)
    more = [
        replace(best, name=f"{best.name}, {name}", options=best.options | changed)
        for name, changed, enabled in (
            ("online reference", {"precompute": False}, True),
            ("checkpointing", {"gradient_checkpointing": True}, True),
            ("compiled", {"compile": True}, arguments.compile),
        )
        if enabled
    ]
    trl_best, more_trials = comparison.search(more)
    if trl_best.micro_batch > 1:
        reduced = ours(arguments, trl_best.micro_batch)
        reduced = replace(reduced, options=reduced.options | {"trl_reduction": True}, order=trl_best.order)
        name = f"micro-batch {trl_best.micro_batch}, TRL's reduction of our values"
        losses.append(comparison.losses(name, reduced, trl_best))
    print("our settings", flush=True)
    our_best, our_trials = comparison.search_ours([ours(arguments, size) for size in sorted(arguments.batches)])
    print("timing", flush=True)
    default = Candidate(
        "TRL defaults: 4 × 2, online reference, checkpointing",
        "trl",
        min(4, arguments.batch),
        {"precompute": False, "gradient_checkpointing": True},
        "drawn",
    )
    return comparison.result(
        our_best,
        {"best": replace(trl_best, name=f"{trl_best.name} (best)"), "default": default},
        targets(arguments),
        losses=losses,
        search=[*trials, *more_trials],
        own_search=our_trials,
    )


def theirs(size: int, order: str = "steps") -> Candidate:
    """Return TRL's settings with a micro-batch size."""
    grouped = ", grouped by length" if order == "length" else ""
    options = {"precompute": True, "gradient_checkpointing": False}
    return Candidate(f"TRL: micro-batch {size}{grouped}", "trl", size, options, order, same_loss=size == 1)


def ours(arguments: Namespace, size: int) -> Candidate:
    """Return our settings with a micro-batch size."""
    return Candidate(f"ours: {arguments.collate}, micro-batch {size}", "ours", size, {"collate": arguments.collate})


def targets(arguments: Namespace) -> list[Target]:
    """Return the targets, which exist for full weights, LoRA, a large vocabulary and policies, in fp32 on a CPU."""
    if arguments.quick or arguments.device != "cpu" or arguments.dtype != "fp32":
        return []
    if arguments.instruction_tokens:
        return [] if arguments.lora else [Target("speed", "best", 4.0)]
    if arguments.vocabulary > 100_000:
        return [Target("speed", "best", 3.0)]
    if arguments.lora:
        return [Target("speed", "best", 2.2), Target("speed", "default", 3.5), Target("share", "limit", 0.8)]
    return [
        Target("speed", "best", 2.2),
        Target("speed", "default", 4.0),
        Target("memory", "best", 0.75),
        Target("memory", "default", 0.4),
        Target("share", "limit", 0.85),
    ]


if __name__ == "__main__":
    main()
