"""``compare``: paired comparison of runs on the same records: differences, tests, flips, criteria."""

import argparse
import json
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

from guardreasoner.cli.commands._compared import add_runs, read_compared
from guardreasoner.cli.options import add_files, require_files, write
from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison import Comparison
from guardreasoner.records import write_jsonl
from guardreasoner.report.comparison_tables import comparison_as_json, comparison_notes, comparison_tables
from guardreasoner.report.cost_table import COST_NOTE, cost_table
from guardreasoner.report.table import latex_document
from guardreasoner.sources.named_predictions import prediction_warnings
from guardreasoner.sources.rollouts import read_costs
from guardreasoner.workflow.terminal import show_line, stdout_console

HELP = "compare runs on the same records: differences with intervals, McNemar tests, flips"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_runs(parser)
    parser.add_argument(
        "--flips",
        type=Path,
        metavar="FILE",
        help="write the records that one run classifies correctly and another does not, as JSONL",
    )
    add_files(parser)


def run(args: argparse.Namespace) -> int:
    """Compare the runs, print the tables and write the files.

    Args:
        args: the arguments that :func:`configure` declares.

    Raises:
        InputError: a file is missing or invalid, the runs have different records, or a role or run is unknown.
    """
    require_files("compare", json=args.json, latex=args.latex, flips=args.flips)
    compared = read_compared(args, "compare")
    comparison, criteria = compared.comparison, compared.criteria
    pairs = comparison.pairs()
    tables = comparison_tables(comparison, pairs, criteria)
    notes = comparison_notes(comparison, pairs, compared.seeds, args.resamples)

    costs = {run.name: read_costs(run.paths) for run in compared.named}
    if any(costs.values()):
        tables.append(cost_table(costs))
        notes.append(COST_NOTE)

    console = stdout_console(120)
    for table in tables:
        table.show(console)
    for note in notes:
        console.print(note, style="dim", highlight=False, markup=False)
    for remark in (*compared.notes, *prediction_warnings(compared.named)):
        show_line(f"note: {remark}")
    if args.flips:
        _write_flips(args.flips, comparison)
    if args.json:
        paths = {run.name: run.paths for run in compared.named}
        content = {"resamples": args.resamples, "seed": args.seed}
        content |= comparison_as_json(comparison, pairs, criteria, paths)
        content["costs"] = {name: [asdict(cost) for cost in found] for name, found in costs.items()}
        write(args.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if args.latex:
        write(args.latex, latex_document(tables, notes))
    return 0


def _write_flips(path: Path, comparison: Comparison) -> None:
    pairs = combinations(comparison.scores, 2)
    rows = (
        {"first": first, "second": second, **asdict(flip)}
        for first, second in pairs
        for flip in comparison.flips(first, second)
    )
    try:
        count = write_jsonl(path, rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    show_line(f"written: {path} ({count} flips)")
