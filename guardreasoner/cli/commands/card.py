"""``card``: write the model card of a model folder."""

import argparse
from pathlib import Path

from guardreasoner.cli.commands._card import add_card_options, card_facts
from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.terminal import show_line

HELP = "write the model card of a model folder: data, recipe, figures, calibration, limits"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="model folder")
    add_card_options(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the card to FILE instead of showing it")


def run(args: argparse.Namespace) -> int:
    """Print or write the card.

    Args:
        args: the arguments that :func:`configure` declares.

    Raises:
        InputError: a file is missing or invalid, or the card would become part of a folder with a manifest.
    """
    from guardreasoner.guard.model_card import model_card

    require_files("card", out=args.out)
    if not Path(args.model).is_dir():
        raise InputError(f"{args.model}: no such model folder")
    if args.out and Manifest.read(args.out.parent):
        raise InputError(
            f"--out {args.out}: a file in this folder would differ from the folder's manifest",
            "python -m guardreasoner export writes a folder with a card",
        )
    text = model_card(card_facts(args.model, args))
    if args.out:
        write(args.out, text)
    else:
        show_line(text.rstrip("\n"))
    return 0
