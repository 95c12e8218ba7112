"""Scores as tables: models as rows, benchmarks as rows, and what the figures mean."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.scoring import AVERAGE, ModelScore, TaskScore
from guardreasoner.evaluation.scoring.labels import Mode
from guardreasoner.report.tables import UNDEFINED, Cell, Table, figure
from guardreasoner.tasks import Task

Scores = Mapping[Mode, Sequence[ModelScore]]
"""Scores of the same models in each mode."""

_ABREAST = 6  # columns of figures that a terminal of 120 characters has room for
_COUNTED: Mapping[Mode, str] = {
    "strict": "one wrong answer",
    "drop": "left out",
    "released": "left out where the label is harmful, else two wrong answers",
}


def score_tables(scores: Scores, tasks: Sequence[Task]) -> list[Table]:
    """Return the tables that show scores.

    The first has a row for each model and mode. One model in one mode is then shown by benchmark, with all figures;
    several are shown beside each other, F1 by benchmark and task, where there is more than one of those or more than
    one mode.

    Args:
        scores: by mode.
        tasks: what was answered.
    """
    columns = [(one, mode) for one in range(len(next(iter(scores.values())))) for mode in scores]
    several = any(len(one.benchmarks) > len(one.averages) for every in scores.values() for one in every)
    tables = [model_table(scores, tasks)]
    if len(columns) == 1:
        ((one,),) = scores.values()
        tables.append(_benchmarks(one))
    elif several or len(scores) > 1:
        places = iter(columns)
        while part := list(islice(places, _ABREAST)):
            tables.append(_side_by_side([(scores[mode][one], mode) for one, mode in part], len(scores) > 1))
    return tables


def model_table(scores: Scores, tasks: Sequence[Task]) -> Table:
    """Return the table with a row for each model and mode: all right, F1 per class, unparsed, hard records."""
    every = [one for models in scores.values() for one in models]
    classes = [
        (task.name, label)
        for task in tasks
        for label in task.labels
        if any((found := _class_f1(one, task.name, label)) and found.value is not None for one in every)
    ]
    hard = any(one.hard for one in every)
    rows = []
    for place in range(len(next(iter(scores.values())))):
        for mode, models in scores.items():
            one = models[place]
            cells = [Cell(one.model, mode if len(scores) > 1 else ""), figure(one.accuracy)]
            cells += [figure(_class_f1(one, *of)) for of in classes]
            cells.append(Cell(str(one.unparsed)))
            rows.append([*cells, *([figure(one.hard.accuracy if one.hard else None)] if hard else [])])
    headings = ["\nmodel", "all\nright", *(f"{task}\n{label}" for task, label in classes), "\nunparsed"]
    return Table("", (*headings, *(["hard\nrecords"] if hard else [])), rows)


def confusion_tables(models: Sequence[ModelScore]) -> list[Table]:
    """Return a table a task: a row for each gold label and model, a column for each verdict, unparsed the last."""
    tasks = {matrix.task: matrix.labels for one in models for matrix in one.confusions}
    tables = []
    for task, labels in tasks.items():
        found = [(one.model, matrix) for one in models for matrix in one.confusions if matrix.task == task]
        rows = []
        for place, label in enumerate(labels):
            for model, matrix in found:
                counts = matrix.counts[place]
                whole = sum(counts)
                cells = [Cell(f"{count:,}", f"{100 * count / whole:.1f} %" if whole else "") for count in counts]
                rows.append([Cell(label), Cell(model), Cell(f"{whole:,}"), *cells])
        headings = ("gold label", "model", "n", *(f"answered\n{label}" for label in labels), "unparsed")
        tables.append(Table(f"Answers by gold label: {task}", headings, rows, words=2))
    return tables


def hard_table(models: Sequence[ModelScore]) -> Table:
    """Return accuracy on hard records, a row a model."""
    rows = [
        [Cell(one.model), figure(one.hard.accuracy)]
        + [Cell(f"{number:,}") for number in (one.hard.records, one.hard.samples, one.hard.unparsed)]
        for one in models
        if one.hard
    ]
    return Table(
        "Accuracy on hard records, in percent", ("model", "outputs right", "records", "outputs", "unparsed"), rows
    )


def score_notes(scores: Scores, resamples: int) -> list[str]:
    """Return what the figures mean, a sentence or two each."""
    every = [one for models in scores.values() for one in models]
    estimates = [row.positive_f1 for one in every for row in one.benchmarks]
    estimates += [f1 for one in every for row in one.averages for f1 in row.f1.values()]
    if len(every) == 1:  # only then by benchmark and in full
        rows = list(_rows(every[0]))
        estimates += [part for row in rows for part in (row.accuracy, row.recall, row.false_positive_rate)]
        estimates += [f1 for row in rows for f1 in row.f1.values()]
    notes = ["In percent. All right: records with every verdict right; then F1 per class."]
    if resamples:
        what = "95 % of the resamples, in which records are drawn with replacement within their benchmark"
        notes.append(f"Below a figure: {what} ({resamples:,}).")
    if len({row.benchmark for one in every for row in one.benchmarks}) > 1:
        mean = "the mean over benchmarks, weighted by their records; over tasks, the plain mean of those"
        notes.append(f"F1 of several benchmarks: {mean}.")
    if found := next((one.hard for one in every if one.hard), None):
        each = f"{found.samples / found.records:g} outputs each"
        notes.append(f"Hard records: share of outputs with every verdict right, {found.records} records, {each}.")
    counted = "; ".join(f"{_COUNTED[mode]} ({mode})" for mode in scores)
    notes.append(f"Unparsed: answers without a verdict; in F1 each is {counted}.")
    if any(one.value is None for one in estimates):
        notes.append(f"{UNDEFINED}: undefined, there is no such record; left out of means.")
    if left_out := max((one.left_out for one in estimates), default=0):
        what = "in which a figure is undefined, since its class was not drawn, are not in its interval"
        notes.append(f"Resamples {what}: up to {left_out:,}.")
    return notes


def scores_as_json(scores: Scores, resamples: int, seed: int) -> dict[str, Any]:
    """Return all numbers; those of a single mode under ``models``, those of several under ``modes``."""
    by_mode = {mode: {one.model: model_as_json(one) for one in models} for mode, models in scores.items()}
    how = {"resamples": resamples, "seed": seed}
    if len(by_mode) == 1:
        ((mode, models),) = by_mode.items()
        return {"mode": mode, **how, "models": models}
    return {**how, "modes": {mode: {"models": models} for mode, models in by_mode.items()}}


def model_as_json(one: ModelScore) -> dict[str, Any]:
    """Return all numbers of one model."""
    benchmarks: dict[str, dict[str, Any]] = {}
    for row in one.benchmarks:
        benchmarks.setdefault(row.benchmark, {})[row.task] = _row_as_json(row)
    hard = one.hard and {
        **estimate_as_json("accuracy", one.hard.accuracy),
        **{"records": one.hard.records, "samples": one.hard.samples, "unparsed": one.hard.unparsed},
    }
    return {
        "records": one.records,
        **estimate_as_json("accuracy", one.accuracy),
        "unparsed": one.unparsed,
        "hard": hard,
        "benchmarks": benchmarks,
        "average": {row.task: _row_as_json(row) for row in one.averages},
        **estimate_as_json("overall_f1", one.overall),
    }


def estimate_as_json(name: str, one: Estimate | None) -> dict[str, Any]:
    """Return a figure and, under a name of its own, its interval (null where there is none)."""
    if one is None:
        return {name: None, f"{name}_interval": None}
    return {name: one.value, f"{name}_interval": None if one.low is None else [one.low, one.high]}


def _benchmarks(one: ModelScore) -> Table:
    headings = ("benchmark", "task", "n", "F1", "accuracy", "recall", "FPR", "unparsed", "F1 of others")
    rows = []
    for row in _rows(one):
        others = "\n".join(f"{label} {figure(f1).text}" for label, f1 in row.f1.items() if label != row.positive)
        figures = [figure(part) for part in (row.positive_f1, row.accuracy, row.recall, row.false_positive_rate)]
        rows.append(
            [Cell(row.benchmark), Cell(row.task), Cell(str(row.n)), *figures, Cell(str(row.unparsed)), Cell(others)]
        )
    if len(one.benchmarks) > len(one.averages):
        total = Cell(str(sum(row.n for row in one.benchmarks)))
        rows.append([Cell(AVERAGE), Cell("all"), total, figure(one.overall), *[Cell("")] * 5])
    return Table(one.model, headings, rows, words=2)


def _side_by_side(columns: Sequence[tuple[ModelScore, Mode]], modes: bool) -> Table:
    keys = {(row.benchmark, row.task): row.n for one, _ in columns for row in one.benchmarks}
    keys |= {(row.benchmark, row.task): row.n for one, _ in columns for row in one.averages}
    headings = [f"{one.model}\n{mode}" if modes else one.model for one, mode in columns]
    found = [{(row.benchmark, row.task): row.positive_f1 for row in _rows(one)} for one, _ in columns]
    rows = [[Cell(b), Cell(t), Cell(str(n)), *(figure(of.get((b, t))) for of in found)] for (b, t), n in keys.items()]
    overall = [figure(one.overall) for one, _ in columns]
    rows.append([Cell(AVERAGE), Cell("all"), Cell(str(max(one.records for one, _ in columns))), *overall])
    return Table("F1 of the positive class", ("benchmark", "task", "n", *headings), rows, words=2)


def _rows(one: ModelScore) -> Iterator[TaskScore]:
    yield from one.benchmarks
    yield from one.averages


def _class_f1(one: ModelScore, task: str, label: str) -> Estimate | None:
    return next((average.f1[label] for average in one.averages if average.task == task), None)


def _row_as_json(row: TaskScore) -> dict[str, Any]:
    per_class = {label: estimate_as_json("f1", one) for label, one in row.f1.items()}
    return {
        "n": row.n,
        **estimate_as_json("f1", row.positive_f1),
        **estimate_as_json("accuracy", row.accuracy),
        **estimate_as_json("recall", row.recall),
        **estimate_as_json("false_positive_rate", row.false_positive_rate),
        "unparsed": row.unparsed,
        "f1_per_class": {label: values["f1"] for label, values in per_class.items()},
        "f1_per_class_interval": {label: values["f1_interval"] for label, values in per_class.items()},
    }
