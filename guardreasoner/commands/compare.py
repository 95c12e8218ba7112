"""``compare``: runs on the same records, paired: differences, tests, flips, the plan's criteria."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import get_args

from guardreasoner.comparison import Comparison, Run, compare
from guardreasoner.comparison.alignment import Answers
from guardreasoner.comparison.criteria import DEMO, ROLES, Criterion, check
from guardreasoner.errors import InputError
from guardreasoner.options import add_files, add_resampling, require_files, write
from guardreasoner.reasoning_quality import faultless
from guardreasoner.records import write_jsonl
from guardreasoner.report.comparisons import comparison_as_json, comparison_notes, comparison_tables
from guardreasoner.report.tables import latex_document
from guardreasoner.scoring.outcomes import Mode
from guardreasoner.sources.named_predictions import Named, read_named, remarks, tasks_of

HELP = "compare runs on the same records: differences with intervals, McNemar tests, flips, the plan's criteria"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]PATH[,PATH]",
        help="predictions as for score; several paths: the seeds of one run",
    )
    parser.add_argument(
        "--mode", choices=get_args(Mode), default="strict", help="what an unparsable answer is, as for score (strict)"
    )
    parser.add_argument(
        "--intersect", action="store_true", help="compare the records that all runs have, where they have not the same"
    )
    parser.add_argument(
        "--criteria",
        nargs="*",
        metavar="ROLE=NAME",
        help="check the two-stage plan's criteria; "
        + "; ".join(f"{role}: {what}" for role, what in ROLES.items())
        + " (runs named as in the demo need no ROLE=NAME)",
    )
    parser.add_argument(
        "--flips", type=Path, metavar="FILE", help="write what one run has right and another wrong, JSONL"
    )
    add_resampling(parser)
    add_files(parser)


def run(args: argparse.Namespace) -> int:
    """Compare the runs, show the tables, write the files.

    Args:
        args: what :func:`configure` declares.

    Raises:
        InputError: a file, or what it holds, is wrong; other records; an unknown role or run.
    """
    require_files(json=args.json, latex=args.latex, flips=args.flips)
    named = read_named(args.runs, "compare", seeds=True)
    runs = [Run(one.name, tuple(_answers(one))) for one in named]
    comparison = compare(runs, tasks_of(named), args.mode, args.intersect, args.resamples, args.seed)
    criteria = _criteria(comparison, runs, args)
    pairs = comparison.pairs()
    tables = comparison_tables(comparison, pairs, criteria)
    seeds = {one.name: len(one.paths) for one in named}
    notes = comparison_notes(comparison, pairs, seeds, args.resamples)
    from rich.console import Console

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    for table in tables:
        table.show(console)
    for note in notes:
        console.print(note, style="dim", highlight=False, markup=False)
    for remark in remarks(named):
        print(f"note: {remark}")
    if args.flips:
        _write_flips(args.flips, comparison)
    if args.json:
        how = {"resamples": args.resamples, "seed": args.seed}
        content = how | comparison_as_json(comparison, pairs, criteria, {one.name: one.paths for one in named})
        write(args.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if args.latex:
        write(args.latex, latex_document(tables, notes))
    return 0


def _answers(one: Named) -> list[Answers]:
    names = one.paths if len(one.paths) > 1 else (one.name,)
    return [
        Answers(name, read.records, read.rollouts, read.hard_records, read.hard_rollouts)
        for name, read in zip(names, one.seeds, strict=True)
    ]


def _criteria(comparison: Comparison, runs: Sequence[Run], args: argparse.Namespace) -> list[Criterion]:
    """Check the criteria where they are asked for, or where the runs are called as in the demo."""
    if args.criteria is None and not all(name in comparison.scores for name in DEMO.values()):
        return []
    roles = {role: name for role, name in DEMO.items() if name in comparison.scores} | _roles(args.criteria or ())
    if not roles:
        raise InputError(
            "compare: --criteria: no run is called as in the demo",
            "say which is which: --criteria rsft=NAME longer=NAME hsdpo=NAME",
        )
    return check(comparison, roles, _quality(comparison, runs, roles), args.resamples, args.seed)


def _quality(
    comparison: Comparison, runs: Sequence[Run], roles: Mapping[str, str]
) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return the share of faultless reasoning by record, for R-SFT and for HS-DPO; None where one is missing."""
    files = {one.name: one for one in comparison.aligned.files}
    seeds = {run.name: [files[answers.name] for answers in run.seeds] for run in runs}
    if not {"rsft", "hsdpo"} <= roles.keys() or not {roles["rsft"], roles["hsdpo"]} <= seeds.keys():
        return None
    before, after = (faultless(seeds[roles[role]], comparison.tasks) for role in ("rsft", "hsdpo"))
    return before, after


def _roles(words: Sequence[str]) -> dict[str, str]:
    roles = {}
    for word in words:
        role, parted, name = word.partition("=")
        if not parted or role not in ROLES:
            hint = "name the runs first, then --criteria rsft=NAME longer=NAME hsdpo=NAME"
            raise InputError(f"compare: --criteria: {word!r} is none of {'=NAME, '.join(ROLES)}=NAME", hint)
        if role in roles:
            raise InputError(f"compare: --criteria: {role} is given twice")
        roles[role] = name
    return roles


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
    print(f"written: {path} ({count} flips)")
