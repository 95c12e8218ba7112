"""HS-DPO against TRL's DPOTrainer with its SFT mix: same weights, ids, order, optimizer, threads, allocator.

    python benchmarks/hsdpo_vs_trl.py --json benchmarks/results/hsdpo.json
    python benchmarks/hsdpo_vs_trl.py --lora --json benchmarks/results/hsdpo-lora.json
    python benchmarks/hsdpo_vs_trl.py --vocabulary 128256 --best-alone --json benchmarks/results/hsdpo-vocabulary.json
    python benchmarks/hsdpo_vs_trl.py --quick

First the losses of both sides are compared, each step after the updates of the steps before it. Then TRL's fastest
settings are searched, and ours. Those, and TRL as it comes, run in turn, each in a process of its own. Pairs are
unweighted, since TRL has no weights for them; the time to precompute the reference is told apart.
"""

from argparse import Namespace
from dataclasses import replace
from typing import Any

from peers import flags
from peers.comparison import Candidate, Comparison, compare
from peers.ratios import Target


def main() -> None:
    """Run the comparison that the flags ask for."""
    compare("hsdpo", flags.read(__doc__), course)


def course(comparison: Comparison) -> dict[str, Any]:
    """Compare losses, search, time."""
    arguments = comparison.arguments
    print("losses", flush=True)
    plain = theirs(1)
    found = [comparison.losses("micro-batch 1", ours(arguments, 1), plain)]
    print("TRL's settings", flush=True)
    sizes = [
        theirs(size, order)
        for size in arguments.batches
        for order in ("steps", "length")
        if size > 1 or order == "steps"
    ]
    best, tried = comparison.search(sizes)
    more = [
        replace(best, name=f"{best.name}, {name}", options=best.options | changed)
        for name, changed, wanted in (
            ("online reference", {"precompute": False}, True),
            ("checkpointing", {"gradient_checkpointing": True}, True),
            ("compiled", {"compile": True}, arguments.compile),
        )
        if wanted
    ]
    other, tried_more = comparison.search(more)
    if other.micro_batch > 1:
        reduced = ours(arguments, other.micro_batch)
        reduced = replace(reduced, options=reduced.options | {"trl_reduction": True}, order=other.order)
        name = f"micro-batch {other.micro_batch}, TRL's reduction of our values"
        found.append(comparison.losses(name, reduced, other))
    print("our settings", flush=True)
    own, own_tried = comparison.search_ours([ours(arguments, size) for size in sorted(arguments.batches)])
    print("in turn", flush=True)
    default = Candidate(
        "TRL as it comes: 4 × 2, online reference, checkpointing",
        "trl",
        min(4, arguments.batch),
        {"precompute": False, "gradient_checkpointing": True},
        "drawn",
    )
    return comparison.result(
        own,
        {"best": replace(other, name=f"{other.name} (best)"), "default": default},
        targets(arguments),
        losses=found,
        search=[*tried, *tried_more],
        own_search=own_tried,
    )


def theirs(size: int, order: str = "steps") -> Candidate:
    """Return TRL with a micro-batch size."""
    grouped = ", grouped by length" if order == "length" else ""
    options = {"precompute": True, "gradient_checkpointing": False}
    return Candidate(f"TRL: micro-batch {size}{grouped}", "trl", size, options, order, same_loss=size == 1)


def ours(arguments: Namespace, size: int) -> Candidate:
    """Return our side with a micro-batch size."""
    return Candidate(f"ours: {arguments.collate}, micro-batch {size}", "ours", size, {"collate": arguments.collate})


def targets(arguments: Namespace) -> list[Target]:
    """Return what is wanted: figures are stated for full weights, LoRA, and a large vocabulary, in fp32 on a CPU."""
    if arguments.quick or arguments.device != "cpu" or arguments.dtype != "fp32":
        return []
    if arguments.vocabulary > 100_000:
        return [Target("speed", "best", 3.0)]
    if arguments.lora:
        return [Target("speed", "best", 2.5), Target("speed", "default", 3.5)]
    return [
        Target("speed", "best", 2.5),
        Target("speed", "default", 4.0),
        Target("memory", "best", 0.75),
        Target("memory", "default", 0.4),
    ]


if __name__ == "__main__":
    main()
