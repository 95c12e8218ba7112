r"""Compares R-SFT with TRL's SFTTrainer: same weights, ids, order, optimizer, threads, allocator.

    python benchmarks/rsft_vs_trl.py --json benchmarks/results/rsft.json
    python benchmarks/rsft_vs_trl.py --lora --json benchmarks/results/rsft-lora.json
    python benchmarks/rsft_vs_trl.py --base checkpoints/smollm2-135m/base --limit 768 \
        --json benchmarks/results/rsft-smollm2.json
    python benchmarks/rsft_vs_trl.py --quick

An example is a real prompt with a right output. Both sides use the token mean over the optimizer step, so their losses
must be equal at any micro-batch size; TRL settings with other losses are left out. TRL's packing groups other examples
into a step, so its losses cannot be compared.
"""

from argparse import Namespace
from dataclasses import replace
from typing import Any

from peers import flags
from peers.comparison import Candidate, Comparison, compare
from peers.ratios import Target


def main() -> None:
    """Run the comparison."""
    compare("rsft", flags.read(__doc__), measure)


def measure(comparison: Comparison) -> dict[str, Any]:
    """Compare the losses, search the fastest settings of each side, and time them."""
    arguments = comparison.arguments
    print("losses", flush=True)
    losses = [comparison.losses("micro-batch 1", ours(arguments, 1), theirs(1))]
    print("our settings", flush=True)
    our_best, our_trials = comparison.search_ours([ours(arguments, size) for size in sorted(arguments.batches)])
    expected = comparison.run(our_best, arguments.search_steps)["losses"]
    print("TRL's settings", flush=True)
    larger = [size for size in arguments.batches if size > 1]
    candidates = [theirs(size) for size in arguments.batches]
    candidates += [theirs(size, order="length") for size in larger]
    candidates += [theirs(size, "padding_free") for size in larger]
    candidates += [theirs(1, "packing", width=width) for width in (arguments.limit, 2 * arguments.limit)]
    best, trials = comparison.search(candidates, expected)
    more = [replace(best, name=f"{best.name}, checkpointing", options=best.options | {"gradient_checkpointing": True})]
    if arguments.compile:
        more.append(replace(best, name=f"{best.name}, compiled", options=best.options | {"compile": True}))
    trl_best, more_trials = comparison.search(more, expected)
    if trl_best.micro_batch > 1:
        size = trl_best.micro_batch
        same = replace(ours(arguments, size), order=trl_best.order)
        losses.append(comparison.losses(f"micro-batch {size}, {trl_best.options['layout']}", same, trl_best))
    print("timing", flush=True)
    options = {"layout": "padded", "gradient_checkpointing": True}
    default = Candidate("TRL defaults: 4 × 2, checkpointing", "trl", min(4, arguments.batch), options, "drawn")
    return comparison.result(
        our_best,
        {"best": replace(trl_best, name=f"{trl_best.name} (best)"), "default": default},
        targets(arguments),
        losses=losses,
        search=[*trials, *more_trials],
        own_search=our_trials,
    )


def theirs(size: int, layout: str = "padded", order: str = "steps", width: int = 0) -> Candidate:
    """Return TRL's settings with a micro-batch size and a layout."""
    layout_name = {"padded": "", "padding_free": ", padding-free", "packing": f", packing to {width}"}[layout]
    grouped = ", grouped by length" if order == "length" else ""
    options = {"layout": layout, "width": width, "gradient_checkpointing": False}
    name = f"TRL: micro-batch {size}{layout_name}{grouped}"
    return Candidate(name, "trl", size, options, order, same_loss=layout != "packing")


def ours(arguments: Namespace, size: int) -> Candidate:
    """Return our settings with a micro-batch size."""
    return Candidate(f"ours: {arguments.collate}, micro-batch {size}", "ours", size, {"collate": arguments.collate})


def targets(arguments: Namespace) -> list[Target]:
    """Return the targets, which exist for full weights and short prompts in fp32 on a CPU."""
    if arguments.quick or arguments.device != "cpu" or arguments.dtype != "fp32":
        return []
    if arguments.lora or arguments.instruction_tokens:
        return []
    if arguments.base is not None:
        return [Target("speed", "best", 1.5)]
    return [Target("speed", "best", 1.8), Target("speed", "default", 2.5)]


if __name__ == "__main__":
    main()
