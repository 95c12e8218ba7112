"""The flags of the benchmarks that run each measurement in a process of its own."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

QUICK = {"hidden": 64, "layers": 2, "vocabulary": 2000, "texts": 200, "repeats": 1}
"""A comparison whose figures mean nothing; each adds flags of its own."""

TRAINING = QUICK | {"pairs": 16, "batches": [1, 2], "search_steps": 1}

PREDICTIONS = Path(__file__).parents[3] / "shared" / "data" / "predictions"


def read(doc: str | None) -> argparse.Namespace:
    """Return the flags of a comparison of training, or end with one line."""
    parser = shared(doc)
    add_device(parser)
    parser.add_argument("--pairs", type=int, default=32, help="examples that are timed, a multiple of --batch")
    parser.add_argument("--batch", type=int, default=8, help="examples an optimizer step")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8], help="micro-batches to search over")
    parser.add_argument("--lora", type=int, nargs="?", const=16, default=0, metavar="R", help="train an adapter")
    parser.add_argument("--search-steps", type=int, default=2, help="optimizer steps of a trial in the search")
    parser.add_argument("--collate", choices=["packed", "two_row"], default="packed", help="our layout of a batch")
    parser.add_argument("--compile", action="store_true", help="also try both sides with torch.compile")
    parser.add_argument("--best-alone", action="store_true", help="leave out TRL as it comes, where memory may not do")
    found = checked(parser, TRAINING, ("pairs", "batch", "search_steps"))
    if found.pairs % found.batch or any(found.batch % size for size in found.batches):
        parser.error("--pairs must be a multiple of --batch, and --batch of each of --batches")
    if find_spec("trl") is None:
        sys.exit("error: TRL is not installed\nhint: pip install --constraint constraints.txt --editable '.[bench]'")
    return found


def shared(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of what all benchmarks here have: the model, the machine, and what is written."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512, help="hidden size of the model, a multiple of 64")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=12_000)
    parser.add_argument("--texts", type=int, default=5000, help="published outputs that the tokenizer is trained on")
    parser.add_argument("--limit", type=int, default=1024, help="longest example in tokens; longer ones are left out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--allocator", choices=["auto", "glibc", "system"], default="auto", help="of every process")
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS, help="folder of published predictions")
    parser.add_argument("--quick", action="store_true", help="a tiny model and few runs, to see that all works")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add where the sides are compared, and in which precision."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")


def checked(parser: argparse.ArgumentParser, quick: Mapping[str, Any], counts: Sequence[str]) -> argparse.Namespace:
    """Return the flags that were given, or end with a line on one that cannot be.

    Args:
        parser: of :func:`shared`.
        quick: what ``--quick`` changes, where the flag itself is not given.
        counts: more flags that must be at least 1.
    """
    found = parser.parse_args()
    if found.quick:
        given = {word.split("=")[0].lstrip("-").replace("-", "_") for word in sys.argv[1:] if word.startswith("--")}
        vars(found).update({name: value for name, value in quick.items() if name not in given})
    for name in ("layers", "vocabulary", "texts", "limit", "repeats", "threads", *counts):
        if getattr(found, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if found.hidden % 64 or found.hidden < 64:
        parser.error("--hidden must be a multiple of 64")
    return found
