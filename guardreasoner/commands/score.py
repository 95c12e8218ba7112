"""``score``: prediction files to F1, accuracy and hard-sample accuracy; several models are the rows of one table."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from guardreasoner.errors import InputError
from guardreasoner.manifest import contaminated
from guardreasoner.prompts import conversation
from guardreasoner.reasoning_quality import Quality, quality
from guardreasoner.records import replacing_file
from guardreasoner.scoring import Mode, ModelScore, TaskScore, score
from guardreasoner.sources.predictions import Predictions, read_predictions
from guardreasoner.tasks import Task

if TYPE_CHECKING:
    from rich.console import Console

HELP = "score prediction files: F1 per class, accuracy, hard-sample accuracy"

_UNDEFINED = "–"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "predictions",
        nargs="+",
        metavar="[NAME=]PATH",
        help="one model each: a folder of <Benchmark>/generated_predictions.jsonl, or such a file; NAME: its row",
    )
    parser.add_argument(
        "--mode",
        choices=get_args(Mode),
        default="strict",
        help="strict (default): an unparsable answer is one wrong answer; released: as the released script counts",
    )
    parser.add_argument(
        "--reasoning",
        action="store_true",
        help="also show what the reasoning is like: conclusions, length, loops, leaks",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Score each model, show the tables, write the JSON.

    Args:
        args: what :func:`configure` declares.

    Raises:
        InputError: a file, or what it holds, is wrong; two models have one name.
    """
    if args.json and args.json.is_dir():
        raise InputError(f"{args.json}: is a folder; --json takes a file")
    models = _read(args.predictions)
    scores = [
        score(name, read.records, read.rollouts, read.tasks, args.mode, read.hard_records, read.hard_rollouts)
        for name, read in models.items()
    ]
    tasks = _same_tasks(models)
    _show(scores, tasks, args.mode)
    if len({frozenset(record.id for record in read.records) for read in models.values()}) > 1:
        print("note: the models were not scored on the same records")
    if len({frozenset(record.id for record in read.hard_records) for read in models.values()}) > 1:
        print("note: the models have not the same hard records")
    for name, folder in _stamped(args.predictions):
        print(f"note: {name} was made with --allow_contamination: {folder}")
    reasoning = {name: _quality(read) for name, read in models.items()} if args.reasoning else {}
    if reasoning:
        from guardreasoner.report.reasoning import show_reasoning

        print()
        show_reasoning(_console(), reasoning)
    if args.json:
        _write(args.json, scores, args.mode, reasoning)
    return 0


def _quality(read: Predictions) -> Quality:
    about = {record.id: conversation(record) for record in read.records}
    answers = [answer.completion for answer in read.rollouts]
    return quality(answers, read.tasks, [about[answer.record_id] for answer in read.rollouts])


def _read(words: Sequence[str]) -> dict[str, Predictions]:
    """Return predictions by the name to show: the one given, else the folder's, else (where two are alike) the path."""
    named: list[tuple[str | None, str, Predictions]] = []
    for word in words:
        name, parted, path = word.partition("=")
        if not parted or not name or Path(word).exists():
            named.append((None, word, read_predictions(word)))
        else:
            named.append((name, path, read_predictions(path)))
    folders = [read.model for _, _, read in named]
    models: dict[str, Predictions] = {}
    for given, path, read in named:
        name = given or (read.model if folders.count(read.model) == 1 else path)
        if name in models:
            raise InputError(f"score: {name!r} is given twice", "name the rows: score A=PATH B=PATH")
        models[name] = read
    return models


def _stamped(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (row as it was given, folder) of predictions whose model was allowed to train on benchmark records."""
    for word in words:
        path = Path(word if Path(word).exists() else word.partition("=")[2])
        if contaminated(path) or contaminated(path.parent):
            yield word, str(path)


def _same_tasks(models: Mapping[str, Predictions]) -> tuple[Task, ...]:
    first, *others = models.items()
    for name, read in others:
        if read.tasks != first[1].tasks:
            asked = ", ".join(task.name for task in read.tasks)
            raise InputError(f"score: {name} was asked other tasks ({asked}) than {first[0]}", "score them one by one")
    return first[1].tasks


def _show(scores: Sequence[ModelScore], tasks: Sequence[Task], mode: Mode) -> None:
    console = _console()
    _show_models(console, scores, tasks)
    if len(scores) == 1:
        console.print()
        _show_benchmarks(console, scores[0])
    for note in _notes(scores, mode):
        console.print(note, style="dim")


def _console() -> "Console":
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)


def _notes(scores: Sequence[ModelScore], mode: Mode) -> list[str]:
    counted = {"strict": "one wrong answer", "released": "left out where the label is harmful, else two wrong answers"}
    notes = ["In percent. All right: records with every verdict right; then F1 per class."]
    if len({one.benchmark for every in scores for one in every.benchmarks}) > 1:
        notes.append("F1 is the mean over benchmarks, weighted by their records.")
    if found := next((one.hard for one in scores if one.hard), None):
        each = f"{found.samples / found.records:g} outputs each"
        notes.append(f"Hard records: share of outputs with every verdict right, {found.records} records, {each}.")
    notes.append(f"Unparsed: answers without a verdict; in F1 each is {counted[mode]} ({mode}).")
    return notes


def _show_models(console: "Console", scores: Sequence[ModelScore], tasks: Sequence[Task]) -> None:
    from rich.markup import escape
    from rich.table import Table

    classes = [
        (task.name, label)
        for task in tasks
        for label in task.labels
        if any(_class_f1(one, task.name, label) is not None for one in scores)
    ]
    hard = any(one.hard for one in scores)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("\nmodel", overflow="fold")
    for heading in ("all\nright", *(f"{task}\n{label}" for task, label in classes), "\nunparsed"):
        table.add_column(heading, justify="right")
    if hard:
        table.add_column("hard\nrecords", justify="right")
    for one in scores:
        cells = [_percent(one.accuracy), *(_percent(_class_f1(one, *of)) for of in classes), str(one.unparsed)]
        table.add_row(escape(one.model), *cells, *([_percent(one.hard.accuracy if one.hard else None)] if hard else []))
    console.print(table)


def _show_benchmarks(console: "Console", one: ModelScore) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("benchmark", "task"):
        table.add_column(heading)
    for heading in ("n", "F1", "accuracy", "unparsed"):
        table.add_column(heading, justify="right")
    table.add_column("F1 per class")
    several = len({score.benchmark for score in one.benchmarks}) > 1
    for row in (*one.benchmarks, *(one.averages if several else ())):
        classes = "  ".join(f"{label} {_percent(value)}" for label, value in row.f1.items())
        numbers = (str(row.n), _percent(row.positive_f1), _percent(row.accuracy), str(row.unparsed))
        table.add_row(escape(row.benchmark), row.task, *numbers, classes)
    if several:
        total = sum(row.n for row in one.benchmarks)
        table.add_row("average", "all", str(total), _percent(one.overall), "", "", "")
    console.print(table)


def _class_f1(one: ModelScore, task: str, label: str) -> float | None:
    return next((average.f1[label] for average in one.averages if average.task == task), None)


def _percent(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.2f}"


def _write(path: Path, scores: Sequence[ModelScore], mode: Mode, reasoning: Mapping[str, Quality]) -> None:
    models = {one.model: _as_json(one) for one in scores}
    for name, found in reasoning.items():
        models[name]["reasoning"] = asdict(found)
    content = {"mode": mode, "models": models}
    try:
        with replacing_file(path) as partial:
            partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    print(f"written: {path}")


def _as_json(one: ModelScore) -> dict[str, Any]:
    benchmarks: dict[str, dict[str, Any]] = {}
    for row in one.benchmarks:
        benchmarks.setdefault(row.benchmark, {})[row.task] = _row(row)
    return {
        "records": one.records,
        "accuracy": one.accuracy,
        "unparsed": one.unparsed,
        "hard": asdict(one.hard) if one.hard else None,
        "benchmarks": benchmarks,
        "average": {row.task: _row(row) for row in one.averages},
        "overall_f1": one.overall,
    }


def _row(row: TaskScore) -> dict[str, Any]:
    return {
        "n": row.n,
        "f1": row.positive_f1,
        "accuracy": row.accuracy,
        "unparsed": row.unparsed,
        "f1_per_class": dict(row.f1),
    }
