"""Flags of the benchmarks that run each measurement in a separate process."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

QUICK = {"hidden": 64, "layers": 2, "vocabulary": 2000, "texts": 200, "repeats": 1}
"""Values of ``--quick``, which only tests that a benchmark runs; each benchmark adds values of its own."""

TRAINING = QUICK | {"pairs": 16, "batches": [1, 2], "search_steps": 1}

PREDICTIONS = Path(__file__).parents[3] / "shared" / "data" / "predictions"


def read(doc: str | None) -> argparse.Namespace:
    """Parse the flags of a training comparison; exit with one line if they are invalid."""
    parser = shared(doc)
    add_device(parser)
    add_base(parser)
    parser.add_argument("--pairs", type=int, default=32, help="number of examples, a multiple of --batch")
    parser.add_argument("--batch", type=int, default=8, help="examples per optimizer step")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8], help="micro-batches to search over")
    parser.add_argument("--lora", type=int, nargs="?", const=16, default=0, metavar="R", help="train an adapter")
    parser.add_argument(
        "--instruction-tokens",
        type=int,
        default=0,
        metavar="N",
        help="put the first N tokens of the embedded corpus of policies, one policy below the other, in front of every "
        "prompt, which is then as long as that of a guard with policies; --limit grows by N (default: none)",
    )
    parser.add_argument("--search-steps", type=int, default=2, help="optimizer steps per trial in the search")
    parser.add_argument("--collate", choices=["packed", "two_row"], default="packed", help="batch layout of our side")
    parser.add_argument("--compile", action="store_true", help="also try both sides with torch.compile")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time, for a machine with other load"
    )
    parser.add_argument("--best-alone", action="store_true", help="leave out TRL's defaults (they need more memory)")
    arguments = checked(parser, TRAINING, ("pairs", "batch", "batches", "search_steps"))
    if arguments.pairs % arguments.batch or any(arguments.batch % size for size in arguments.batches):
        parser.error("--pairs must be a multiple of --batch, and --batch of each of --batches")
    if arguments.instruction_tokens < 0:
        parser.error("--instruction-tokens must be at least 0")
    arguments.limit += arguments.instruction_tokens
    if find_spec("trl") is None:
        sys.exit("error: TRL is not installed\nhint: pip install --constraint constraints.txt --editable '.[bench]'")
    return arguments


def shared(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags of all benchmarks: model, machine and output."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512, help="hidden size of the model, a multiple of 64")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=12_000)
    parser.add_argument("--texts", type=int, default=5000, help="published outputs for training the tokenizer")
    parser.add_argument("--limit", type=int, default=1024, help="longest example in tokens; longer ones are left out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--allocator", choices=["auto", "glibc", "system"], default="auto", help="memory allocator")
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS, help="folder of published predictions")
    parser.add_argument("--quick", action="store_true", help="a tiny model and few runs, as a smoke test")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser


def positive_int(text: str) -> int:
    """Return the value of a flag that must be a whole number from 1, as ``type`` of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1")
    return int(text)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the flags of device and precision."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")


def add_base(parser: argparse.ArgumentParser) -> None:
    """Add the flag of a model folder that replaces the model made for a benchmark."""
    parser.add_argument("--base", type=Path, help="model folder to measure, such as SmolLM2's; default: make a model")


def checked(parser: argparse.ArgumentParser, quick: Mapping[str, Any], counts: Sequence[str]) -> argparse.Namespace:
    """Parse and check the flags; exit with one line if one is invalid. The model's sizes are those of ``--base``.

    Args:
        parser: The parser, from :func:`shared`.
        quick: Values that ``--quick`` sets unless the flag itself is given.
        counts: Further flags that must be at least 1, each value of a list.
    """
    arguments = parser.parse_args()
    if arguments.quick:
        given = {word.split("=")[0].lstrip("-").replace("-", "_") for word in sys.argv[1:] if word.startswith("--")}
        vars(arguments).update({name: value for name, value in quick.items() if name not in given})
    for name in ("layers", "vocabulary", "texts", "limit", "repeats", "threads", *counts):
        value = getattr(arguments, name)
        if min(value if isinstance(value, list) else [value]) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if arguments.hidden % 64 or arguments.hidden < 64:
        parser.error("--hidden must be a multiple of 64")
    base = getattr(arguments, "base", None)
    if base is not None:
        if not (base / "config.json").is_file():
            parser.error(f"--base: {base}: not a model folder: no config.json")
        arguments.base = base.resolve()  # the measured processes run in another folder
        config = json.loads((base / "config.json").read_text())
        arguments.hidden, arguments.layers = config["hidden_size"], config["num_hidden_layers"]
        arguments.vocabulary = config["vocab_size"]
    return arguments
