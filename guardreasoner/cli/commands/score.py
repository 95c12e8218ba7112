"""``score``: prediction files to F1, accuracy and hard-sample accuracy; several models are the rows of one table."""

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from guardreasoner.cli.options import add_files, add_resampling, require_files, write
from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison.alignment import describe_missing, differing_ids, missing_records
from guardreasoner.evaluation.reasoning_quality import Quality, quality
from guardreasoner.evaluation.scoring import ModelScore, score
from guardreasoner.evaluation.scoring.labels import Mode
from guardreasoner.prompts import conversation
from guardreasoner.report.score_tables import score_notes, score_tables, scores_as_json
from guardreasoner.report.table import latex_document
from guardreasoner.sources.named_predictions import (
    NamedPredictions,
    check_against_benchmarks,
    common_tasks,
    prediction_warnings,
    read_named_predictions,
)

HELP = "score prediction files: F1 per class, accuracy, hard-sample accuracy, with intervals"

_MODES: tuple[Mode, ...] = get_args(Mode)
_ALL = "all"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "predictions",
        nargs="*",
        metavar="[NAME=]PATH",
        help="one model each: a folder of <Benchmark>/generated_predictions.jsonl, or such a file; NAME: its row",
    )
    parser.add_argument(
        "--mode",
        nargs="+",
        default=["strict"],
        metavar="MODE",
        help="strict (default): an unparsable answer is one wrong answer; drop: it is left out; released: as the "
        "released script counts; several, or all, side by side",
    )
    parser.add_argument(
        "--benchmarks",
        type=Path,
        metavar="FOLDER",
        help="holds benchmarks/ as released: refuse predictions of other records than theirs",
    )
    parser.add_argument(
        "--reasoning",
        action="store_true",
        help="also show what the reasoning is like: conclusions, length, loops, leaks",
    )
    add_resampling(parser)
    add_files(parser)


def run(args: argparse.Namespace) -> int:
    """Score each model, show the tables, write the files.

    Args:
        args: what :func:`configure` declares.

    Raises:
        InputError: a file, or what it holds, is wrong; two models have one name.
    """
    require_files(json=args.json, latex=args.latex)
    modes, paths = _modes_and_paths(args)
    models = read_named_predictions(paths, "score")
    tasks = common_tasks(models)
    notes = check_against_benchmarks(models, args.benchmarks) if args.benchmarks else []
    scores = {mode: [_score(one, mode, args) for one in models] for mode in modes}
    tables, meanings = score_tables(scores, tasks), score_notes(scores, args.resamples)
    from rich.console import Console

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    for table in tables:
        table.show(console)
    for meaning in meanings:
        console.print(meaning, style="dim", highlight=False, markup=False)
    reasoning = {one.name: _quality(one) for one in models} if args.reasoning else {}
    if reasoning:
        from guardreasoner.report.reasoning_table import show_reasoning

        console.print()
        show_reasoning(console, reasoning)
    for note in [*notes, *_unlike(models), *prediction_warnings(models)]:
        print(f"note: {note}")
    if args.json:
        content = scores_as_json(scores, args.resamples, args.seed)
        if reasoning:
            content["reasoning"] = {name: found.as_json() for name, found in reasoning.items()}
        write(args.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if args.latex:
        write(args.latex, latex_document(tables, meanings))
    return 0


def _modes_and_paths(args: argparse.Namespace) -> tuple[list[Mode], list[str]]:
    """Return the modes, and what is to be scored: also the words after the modes, as in ``--mode strict PATH``."""
    words = list(args.mode)
    count = next((place for place, word in enumerate(words) if word not in (*_MODES, _ALL)), len(words))
    if not count:
        raise InputError(f"score: --mode: invalid choice {words[0]!r}, choose from {', '.join((*_MODES, _ALL))}")
    modes = _MODES if _ALL in words[:count] else tuple(mode for mode in _MODES if mode in words[:count])
    paths = [*args.predictions, *words[count:]]
    if not paths:
        raise InputError("score: required: [NAME=]PATH", "python -m guardreasoner score --help lists the options")
    return list(modes), paths


def _score(one: NamedPredictions, mode: Mode, args: argparse.Namespace) -> ModelScore:
    (read,) = one.seeds
    hard = (read.hard_records, read.hard_rollouts)
    return score(one.name, read.records, read.rollouts, read.tasks, mode, *hard, args.resamples, args.seed)


def _quality(one: NamedPredictions) -> Quality:
    (read,) = one.seeds
    about = {record.id: conversation(record) for record in read.records}
    answers = [answer.completion for answer in read.rollouts]
    return quality(answers, read.tasks, [about[answer.record_id] for answer in read.rollouts])


def _unlike(models: list[NamedPredictions]) -> list[str]:
    """Return how the records of models differ."""
    notes = []
    records = {one.name: one.seeds[0].records for one in models}
    if absent := missing_records(records):
        notes.append(f"the models were not scored on the same records: {describe_missing(absent)}")
    hard = {one.name: one.seeds[0].hard_records for one in models}
    if absent := missing_records(hard):
        notes.append(f"the models have not the same hard records: {describe_missing(absent)}")
    first = models[0].name
    for name, other in records.items():
        if unlike := differing_ids(records[first], other):
            what = f"{len(unlike)} rows in the same place, or of the same id, are other conversations or labels"
            notes.append(f"{first} and {name}: {what}: {unlike[0]}" + (", …" if len(unlike) > 1 else ""))
    return notes
