"""``robustness``: measure how each family of attacks changes the predictions."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.evaluation.robustness import ALL, DROP_RESAMPLES, FamilyScore, robustness
from guardreasoner.sources.predictions import read_predictions
from guardreasoner.workflow.manifest import contaminated
from guardreasoner.workflow.prediction_origin import prediction_origin
from guardreasoner.workflow.terminal import show_line, stdout_console

if TYPE_CHECKING:
    from rich.console import Console

HELP = "compare predictions with and without attacks: F1 drop and rate of flipped verdicts per attack family"

_UNDEFINED = "–"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "predictions",
        type=Path,
        help="output of test --config configs/robustness.yaml: a folder of <Benchmark>/generated_predictions.jsonl",
    )
    parser.add_argument("--benchmarks", action="store_true", help="also print a row per benchmark")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all numbers, including those per benchmark, as JSON"
    )


def run(args: argparse.Namespace) -> int:
    """Compare the predictions, print the tables and write the JSON file.

    Args:
        args: the arguments that :func:`configure` declares.

    Raises:
        InputError: a file is missing or invalid, or no record is attacked.
    """
    require_files("robustness", json=args.json)
    read = read_predictions(args.predictions)
    try:
        scores = robustness(read.records, read.rollouts, read.tasks, format=read.format)
    except InputError as error:
        raise InputError(f"{args.predictions}: {error}", error.hint) from None
    _show(scores if args.benchmarks else [score for score in scores if score.benchmark == ALL])
    if contaminated(args.predictions) or contaminated(args.predictions.parent):
        show_line(f"note: made with --allow_contamination: {args.predictions}")
    if args.json:
        made = prediction_origin(args.predictions).as_json([str(args.predictions)])
        content = {"model": read.model, **made, "resamples": DROP_RESAMPLES}
        content["families"] = [_as_json(score) for score in scores]
        write(args.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return 0


def _show(scores: Sequence[FamilyScore]) -> None:

    console = stdout_console(120)
    for task, positive in dict.fromkeys((score.task, score.positive) for score in scores):
        _show_task(console, positive, [score for score in scores if score.task == task])
        console.print()
    notes = (
        "In percent, with 95 % intervals; sorted by drop. F1: over the attacked records of all benchmarks, without and",
        "with the attack; the interval of the drop is a paired bootstrap over records. Flipped: records with a",
        "positive verdict without the attack and another one with it (Wilson); where the other labels flag, the",
        "reverse. Unparsed: answers without a verdict; each counts as one wrong answer in F1.",
    )
    for note in notes:
        console.print(note, style="dim", highlight=False)


def _show_task(console: "Console", positive: str, scores: Sequence[FamilyScore]) -> None:
    from rich.markup import escape
    from rich.table import Table

    several = len({score.benchmark for score in scores}) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{scores[0].task}: {positive}\nfamily", overflow="fold")
    if several:
        table.add_column("\nbenchmark", overflow="fold")
    for heading in ("\nn", "F1\nbefore", "\nafter", "\ndrop", "\n", "\nflipped", "", "", "unparsed\nbefore", "\nafter"):
        table.add_column(heading, justify="right", no_wrap=True)
    for score in sorted(scores, key=lambda score: -(score.drop.value or 0)):
        names = (score.family, score.benchmark) if several else (score.family,)
        flipped = score.flipped
        table.add_row(
            *map(escape, names),
            *(str(score.n), _percent(score.before), _percent(score.after)),
            *(_percent(score.drop.value), _between(score.drop.interval)),
            *(f"{flipped.count}/{flipped.total}", _percent(flipped.percent), _between(flipped.interval)),
            *(str(score.unparsed_before), str(score.unparsed_after)),
        )
    console.print(table)


def _percent(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.1f}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def _as_json(score: FamilyScore) -> dict[str, Any]:
    flipped = {**asdict(score.flipped), "percent": score.flipped.percent, "interval": score.flipped.interval}
    return {**asdict(score), "drop": score.drop.value, "drop_interval": score.drop.interval, "flipped": flipped}
