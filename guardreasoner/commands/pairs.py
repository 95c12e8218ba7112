"""``pairs``: hard records and their preference pairs from rollout files."""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

from guardreasoner.errors import InputError
from guardreasoner.manifest import record_made
from guardreasoner.mining import PRESETS, Counts, Graded, Mined, Pairing, ReadingName, Rule, Unparsable, mine
from guardreasoner.records import write_jsonl
from guardreasoner.sources.rollouts import read_rollout_folders, tasks_of

HELP = "find hard records in rollouts and write their weighted preference pairs"

_CHOICES = {
    "reading": (get_args(ReadingName), "how a verdict is read from an output"),
    "unparsable": (get_args(Unparsable), "what an output without a verdict is"),
    "chosen": (get_args(Rule), "which right output is preferred"),
    "rejected": (get_args(Rule), "to which wrong output"),
    "graded": (get_args(Graded), "what makes an output right: all gold labels, or those of the first mixed task"),
}
_OPTIONS = ("pool", *_CHOICES, "gamma", "seed")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--rollouts",
        nargs="+",
        required=True,
        type=Path,
        metavar="PATH",
        help="folders with records.jsonl and rollouts.jsonl, or prediction folders or files",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the pairs, as JSONL")
    parser.add_argument(
        "--preset", choices=tuple(PRESETS), default="plan", help="what the options below start from (plan)"
    )
    parser.add_argument(
        "--pool",
        action=argparse.BooleanOptionalAction,
        help="let all models' outputs vote together, or mine each alone",
    )
    for name, (words, meaning) in _CHOICES.items():
        parser.add_argument(f"--{name}", choices=words, help=meaning)
    parser.add_argument("--gamma", type=float, help="half-width of the range of the weights, 0 to below 1")
    parser.add_argument("--seed", type=int, help="of the random choices")


def run(args: argparse.Namespace) -> int:
    """Mine, show the counts, write the pairs.

    Args:
        args: what :func:`configure` declares.

    Returns:
        0, or 1 when no record is hard; then nothing is written.

    Raises:
        InputError: an option, a file, or what it holds is wrong.
    """
    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    pairing = replace(PRESETS[args.preset], **given)
    if args.out.is_dir():
        raise InputError(f"{args.out}: is a folder; --out takes a file")
    records, rollouts = read_rollout_folders(args.rollouts)
    mined = mine(records, rollouts, tasks_of(args.rollouts), pairing)
    _show(mined)
    if not mined.pairs:
        print(f"error: no record is hard, {args.out} is not written", file=sys.stderr)
        print(f"hint: {_advice(mined.total(), pairing)}", file=sys.stderr)
        return 1
    try:
        write_jsonl(args.out, mined.pairs)
        record_made(args.out, ["pairs", *args.words], {"output": str(args.out), **asdict(pairing)}, args.rollouts)
    except OSError as error:
        raise InputError(f"{args.out}: cannot be written: {error.strerror}") from None
    least, most = (pick(pair.weight for pair in mined.pairs) for pick in (min, max))
    weights = f"weights {least:.3g} to {most:.3g}" if least < most else f"all of weight {least:.3g}"
    found = f"{len(mined.pairs)} hard records, {weights}"
    print(f"{mined.total().outputs} outputs of {len(records)} records: {found}; written: {args.out}")
    return 0


def _advice(total: Counts, pairing: Pairing) -> str:
    if total.too_few == total.groups:
        return "too few outputs are left to compare: --unparsable wrong, more outputs a record, or longer training"
    if total.all_right >= total.all_wrong:
        return "outputs agree: sample more a record, at a higher temperature, from several models, or other records"
    if total.unparsed > total.outputs / 2:
        return "most outputs give no verdict: train R-SFT longer, or allow more new tokens"
    return "no output is right: train R-SFT longer, or check that the gold labels and the tasks belong together"


def _show(mined: Mined) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    total = mined.total()
    columns = {
        "all right": "all_right",
        "mixed": "mixed",
        "all wrong": "all_wrong",
        "too few": "too_few",
        "duplicates": "duplicates",
        "unparsed outputs": "unparsed",
        "dropped": "dropped",
        "pairs": "pairs",
    }
    # What can only be under some options is shown where it is.
    shown = [
        name for name in columns if name not in ("too few", "duplicates", "dropped") or getattr(total, columns[name])
    ]
    table.add_column("source", footer="total")
    for name in shown:
        table.add_column(name, footer=str(getattr(total, columns[name])), justify="right")
    for source, counts in mined.counts.items():
        table.add_row(escape(source or "(none)"), *(str(getattr(counts, columns[name])) for name in shown))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(table)
