"""``robustness``: predictions on attacked records to what each family of attacks changes."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.evaluation.robustness import ALL, DROP_RESAMPLES, FamilyScore, robustness
from guardreasoner.sources.predictions import read_predictions
from guardreasoner.workflow.manifest import contaminated

if TYPE_CHECKING:
    from rich.console import Console

HELP = "compare predictions with and without attacks: F1 drop and harmful-to-unharmful rate per family"

_UNDEFINED = "–"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "predictions",
        type=Path,
        help="what test --config configs/robustness.yaml wrote: a folder of <Benchmark>/generated_predictions.jsonl",
    )
    parser.add_argument(
        "--benchmarks", action="store_true", help="also show a row per benchmark, where there are several"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers, per benchmark too, as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare, show the tables, write the JSON.

    Args:
        args: what :func:`configure` declares.

    Raises:
        InputError: a file, or what it holds, is wrong; no record is attacked.
    """
    require_files(json=args.json)
    read = read_predictions(args.predictions)
    try:
        scores = robustness(read.records, read.rollouts, read.tasks)
    except InputError as error:
        raise InputError(f"{args.predictions}: {error}", error.hint) from None
    _show(scores if args.benchmarks else [one for one in scores if one.benchmark == ALL])
    if contaminated(args.predictions) or contaminated(args.predictions.parent):
        print(f"note: made with --allow_contamination: {args.predictions}")
    if args.json:
        content = {"model": read.model, "resamples": DROP_RESAMPLES, "families": [_as_json(one) for one in scores]}
        write(args.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return 0


def _show(scores: Sequence[FamilyScore]) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    for task, positive in dict.fromkeys((one.task, one.positive) for one in scores):
        _show_task(console, positive, [one for one in scores if one.task == task])
        console.print()
    notes = (
        "In percent, with 95 % intervals; the largest drop first. F1 of all benchmarks' records together, on those",
        "attacked: as they are, and under the attack; the drop's interval is a bootstrap over records, each with both",
        "answers. Turned: of the records judged positive before, those judged another label after (Wilson).",
        "Unparsed: answers without a verdict, before and after; in F1 each is one wrong answer.",
    )
    for note in notes:
        console.print(note, style="dim", highlight=False)


def _show_task(console: "Console", positive: str, scores: Sequence[FamilyScore]) -> None:
    from rich.markup import escape
    from rich.table import Table

    several = len({one.benchmark for one in scores}) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{scores[0].task}: {positive}\nfamily", overflow="fold")
    if several:
        table.add_column("\nbenchmark", overflow="fold")
    for heading in ("\nn", "F1\nbefore", "\nafter", "\ndrop", "\n", "\nturned", "", "", "unparsed\nbefore", "\nafter"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in sorted(scores, key=lambda one: -(one.drop.value or 0)):
        names = (one.family, one.benchmark) if several else (one.family,)
        turned = one.turned
        table.add_row(
            *map(escape, names),
            *(str(one.n), _percent(one.before), _percent(one.after)),
            *(_percent(one.drop.value), _between(one.drop.interval)),
            *(f"{turned.count}/{turned.total}", _percent(turned.percent), _between(turned.interval)),
            *(str(one.unparsed_before), str(one.unparsed_after)),
        )
    console.print(table)


def _percent(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.1f}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def _as_json(one: FamilyScore) -> dict[str, Any]:
    turned = {**asdict(one.turned), "percent": one.turned.percent, "interval": one.turned.interval}
    return {**asdict(one), "drop": one.drop.value, "drop_interval": one.drop.interval, "turned": turned}
