"""R-SFT against TRL's SFTTrainer: same weights, ids, order, optimizer, threads, allocator.

    python benchmarks/rsft_vs_trl.py --json benchmarks/results/rsft.json
    python benchmarks/rsft_vs_trl.py --lora --json benchmarks/results/rsft-lora.json
    python benchmarks/rsft_vs_trl.py --quick

An example is a real prompt with a right output. Both sides take the token mean over the optimizer step, so their
losses must be equal at any micro-batch size; settings of TRL whose losses are not are left out. Its packing puts other
examples together in a step, so those losses cannot be compared.
"""

from argparse import Namespace
from dataclasses import replace
from typing import Any

from peers import flags
from peers.comparison import Candidate, Comparison, compare
from peers.ratios import Target


def main() -> None:
    """Run the comparison that the flags ask for."""
    compare("rsft", flags.read(__doc__), course)


def course(comparison: Comparison) -> dict[str, Any]:
    """Compare losses, search, time."""
    arguments = comparison.arguments
    print("losses", flush=True)
    found = [comparison.losses("micro-batch 1", ours(arguments, 1), theirs(1))]
    print("our settings", flush=True)
    own, own_tried = comparison.search_ours([ours(arguments, size) for size in sorted(arguments.batches)])
    expected = comparison.run(own, arguments.search_steps)["losses"]
    print("TRL's settings", flush=True)
    larger = [size for size in arguments.batches if size > 1]
    choices = [theirs(size) for size in arguments.batches]
    choices += [theirs(size, order="length") for size in larger]
    choices += [theirs(size, "padding_free") for size in larger]
    choices += [theirs(1, "packing", width=width) for width in (arguments.limit, 2 * arguments.limit)]
    best, tried = comparison.search(choices, expected)
    more = [replace(best, name=f"{best.name}, checkpointing", options=best.options | {"gradient_checkpointing": True})]
    if arguments.compile:
        more.append(replace(best, name=f"{best.name}, compiled", options=best.options | {"compile": True}))
    other, tried_more = comparison.search(more, expected)
    if other.micro_batch > 1:
        size = other.micro_batch
        same = replace(ours(arguments, size), order=other.order)
        found.append(comparison.losses(f"micro-batch {size}, {other.options['layout']}", same, other))
    print("in turn", flush=True)
    options = {"layout": "padded", "gradient_checkpointing": True}
    default = Candidate("TRL as it comes: 4 × 2, checkpointing", "trl", min(4, arguments.batch), options, "drawn")
    return comparison.result(
        own,
        {"best": replace(other, name=f"{other.name} (best)"), "default": default},
        targets(arguments),
        losses=found,
        search=[*tried, *tried_more],
        own_search=own_tried,
    )


def theirs(size: int, layout: str = "padded", order: str = "steps", width: int = 0) -> Candidate:
    """Return TRL with a micro-batch size and a layout."""
    about = {"padded": "", "padding_free": ", padding-free", "packing": f", packing to {width}"}[layout]
    grouped = ", grouped by length" if order == "length" else ""
    options = {"layout": layout, "width": width, "gradient_checkpointing": False}
    name = f"TRL: micro-batch {size}{about}{grouped}"
    return Candidate(name, "trl", size, options, order, same_loss=layout != "packing")


def ours(arguments: Namespace, size: int) -> Candidate:
    """Return our side with a micro-batch size."""
    return Candidate(f"ours: {arguments.collate}, micro-batch {size}", "ours", size, {"collate": arguments.collate})


def targets(arguments: Namespace) -> list[Target]:
    """Return what is wanted of full weights in fp32 on a CPU."""
    if arguments.quick or arguments.device != "cpu" or arguments.dtype != "fp32" or arguments.lora:
        return []
    return [Target("speed", "best", 1.8), Target("speed", "default", 2.5)]


if __name__ == "__main__":
    main()
