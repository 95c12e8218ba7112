"""Scores as tables, notes and JSON."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.scoring import AVERAGE, ModelScore, TaskScore
from guardreasoner.evaluation.scoring.labels import Mode
from guardreasoner.evaluation.scoring.readings import Reading, readings_of
from guardreasoner.report.table import UNDEFINED, Cell, Table, estimate_cell
from guardreasoner.tasks import Task

Scores = Mapping[Mode, Sequence[ModelScore]]
"""Scores of the same models in each scoring mode."""

_MAX_COLUMNS = 6  # number columns that fit into a terminal of 120 characters
READINGS_NOTE = (
    "After the name of a task with ordered labels: (strict) counts every label but the first as positive, (loose) "
    "only the last. This is independent of the mode."
)
ONE_SIDED_NOTE = "FPR: the false-positive rate, in place of F1 where no record that counts is positive."
_UNPARSED_RULES: Mapping[Mode, str] = {
    "strict": "one wrong answer",
    "drop": "left out",
    "released": "left out where the label is harmful, else two wrong answers",
}
STEERABILITY_NOTE = (
    "Steerability: pairs of records with the same messages and, under two policies, different gold labels; both right: "
    "both verdicts are; verdict changes: the two differ. The bootstrap draws conversations."
)


def score_tables(scores: Scores, tasks: Sequence[Task]) -> list[Table]:
    """Return the tables that show scores.

    The first table has one row per model and mode. One model in one mode then gets a table with all scores by
    benchmark. Several get tables of F1 by benchmark and task, if there are several benchmarks or modes.

    Args:
        scores: Scores by mode.
        tasks: The tasks that were answered.
    """
    columns = [(index, mode) for index in range(len(next(iter(scores.values())))) for mode in scores]
    several = any(len(model.benchmarks) > len(model.averages) for models in scores.values() for model in models)
    tables = [model_table(scores, tasks)]
    if len(columns) == 1:
        ((model,),) = scores.values()
        tables.append(_benchmark_table(model))
    elif several or len(scores) > 1:
        remaining = iter(columns)
        while part := list(islice(remaining, _MAX_COLUMNS)):
            tables.append(_f1_table([(scores[mode][index], mode) for index, mode in part], len(scores) > 1))
    for mode, models in scores.items():
        tables += steerability_tables(models, mode if len(scores) > 1 else "")
    return tables


def model_table(scores: Scores, tasks: Sequence[Task]) -> Table:
    """Return a table with one row per model and mode: accuracy, F1 per class, unparsed answers, hard records.

    A task with ordered labels also has a column for the F1 of each reading.
    """
    all_models = [model for models in scores.values() for model in models]
    classes = [
        (task.name, label)
        for task in tasks
        for label in task.labels
        if any((f1 := class_f1(model, task.name, label)) and f1.value is not None for model in all_models)
    ]
    binary = [(task.name, reading) for task in tasks for reading in readings_of(task)]
    hard = any(model.hard for model in all_models)
    rows = []
    for index in range(len(next(iter(scores.values())))):
        for mode, models in scores.items():
            model = models[index]
            cells = [Cell(model.model, mode if len(scores) > 1 else ""), estimate_cell(model.accuracy)]
            cells += [estimate_cell(class_f1(model, task, label)) for task, label in classes]
            cells += [estimate_cell(reading_f1(model, task, reading)) for task, reading in binary]
            cells.append(Cell(str(model.unparsed)))
            rows.append([*cells, *([estimate_cell(model.hard.accuracy if model.hard else None)] if hard else [])])
    f1_headings = [f"{task}\n{label}" for task, label in classes] + [f"{task}\n({reading})" for task, reading in binary]
    headings = ["\nmodel", "all\nright", *f1_headings, "\nunparsed"]
    return Table("", (*headings, *(["hard\nrecords"] if hard else [])), rows)


def confusion_tables(models: Sequence[ModelScore]) -> list[Table]:
    """Return one confusion table per task: a row per gold label and model, a column per verdict, unparsed last."""
    tasks = {matrix.task: matrix.labels for model in models for matrix in model.confusions}
    tables = []
    for task, labels in tasks.items():
        matrices = [(model.model, matrix) for model in models for matrix in model.confusions if matrix.task == task]
        rows = []
        for index, label in enumerate(labels):
            for model_name, matrix in matrices:
                counts = matrix.counts[index]
                total = sum(counts)
                cells = [Cell(f"{count:,}", f"{100 * count / total:.1f} %" if total else "") for count in counts]
                rows.append([Cell(label), Cell(model_name), Cell(f"{total:,}"), *cells])
        headings = ("gold label", "model", "n", *(f"answered\n{label}" for label in labels), "unparsed")
        tables.append(Table(f"Answers by gold label: {task}", headings, rows, text_columns=2))
    return tables


def hard_table(models: Sequence[ModelScore]) -> Table:
    """Return accuracy on hard records, one row per model."""
    rows = [
        [Cell(model.model), estimate_cell(model.hard.accuracy)]
        + [Cell(f"{number:,}") for number in (model.hard.records, model.hard.samples, model.hard.unparsed)]
        for model in models
        if model.hard
    ]
    headings = ("model", "outputs right", "records", "outputs", "unparsed")
    return Table("Accuracy on hard records, in percent", headings, rows)


def steerability_tables(models: Sequence[ModelScore], mode: str = "") -> list[Table]:
    """Return a table of the pairs of records that differ in policy and gold label; none if no model has such pairs."""
    rows = [
        [
            *(Cell(name) for name in (model.model, row.benchmark, row.task)),
            *(Cell(f"{number:,}") for number in (row.conversations, row.pairs)),
            *(estimate_cell(share) for share in (row.both_right, row.changed)),
        ]
        for model in models
        for row in model.steerability
    ]
    headings = ("model", "benchmark", "task", "conversations", "pairs", "both\nright", "verdict\nchanges")
    title = f"Steerability by policy, in percent{f' ({mode})' if mode else ''}"
    return [Table(title, headings, rows, text_columns=3)] if rows else []


def score_notes(scores: Scores, resamples: int) -> list[str]:
    """Return notes that explain the numbers in the score tables."""
    models = [model for models in scores.values() for model in models]
    estimates = [row.positive_f1 for model in models for row in flat(model.benchmarks)]
    estimates += [f1 for model in models for row in flat(model.averages) for f1 in row.f1.values()]
    if len(models) == 1:  # only then do the tables show all scores by benchmark
        rows = list(_rows(models[0]))
        estimates += [score for row in rows for score in (row.accuracy, row.recall, row.false_positive_rate)]
        estimates += [f1 for row in rows for f1 in row.f1.values()]
    notes = ["In percent. All right: records with every verdict right; then F1 per class."]
    if resamples:
        notes.append(f"Below a number: 95 % bootstrap interval ({resamples:,} resamples within each benchmark).")
    if len({row.benchmark for model in models for row in model.benchmarks}) > 1:
        mean = "the mean over benchmarks, weighted by their records; over tasks, the plain mean of those"
        notes.append(f"F1 of several benchmarks: {mean}.")
    if any(row.readings for model in models for row in model.averages):
        notes.append(READINGS_NOTE)
    if len(models) > 1 and any(one_sided(row) for model in models for row in _rows(model)):
        notes.append(ONE_SIDED_NOTE)
    if hard := next((model.hard for model in models if model.hard), None):
        outputs = f"{hard.samples / hard.records:g} outputs each"
        notes.append(f"Hard records: share of outputs with every verdict right, {hard.records} records, {outputs}.")
    if any(model.steerability for model in models):
        notes.append(STEERABILITY_NOTE)
    rules = "; ".join(f"{_UNPARSED_RULES[mode]} ({mode})" for mode in scores)
    notes.append(f"Unparsed: answers without a verdict; each counts in F1 as {rules}.")
    if any(estimate.value is None for estimate in estimates):
        notes.append(f"{UNDEFINED}: undefined, as no record that counts has this class; left out of means.")
    if left_out := max((estimate.left_out for estimate in estimates), default=0):
        notes.append(f"Intervals leave out resamples in which a score is undefined: up to {left_out:,}.")
    return notes


def scores_as_json(scores: Scores, resamples: int, seed: int) -> dict[str, Any]:
    """Return all numbers as JSON: under ``models`` for one mode, under ``modes`` for several."""
    by_mode = {mode: {model.model: model_as_json(model) for model in models} for mode, models in scores.items()}
    resampling = {"resamples": resamples, "seed": seed}
    if len(by_mode) == 1:
        ((mode, models),) = by_mode.items()
        return {"mode": mode, **resampling, "models": models}
    return {**resampling, "modes": {mode: {"models": models} for mode, models in by_mode.items()}}


def model_as_json(model: ModelScore) -> dict[str, Any]:
    """Return all numbers of one model as JSON."""
    benchmarks: dict[str, dict[str, Any]] = {}
    for row in model.benchmarks:
        benchmarks.setdefault(row.benchmark, {})[row.task] = _row_as_json(row)
    steerability: dict[str, dict[str, Any]] = {}
    for steered in model.steerability:
        steerability.setdefault(steered.benchmark, {})[steered.task] = {
            "conversations": steered.conversations,
            "pairs": steered.pairs,
            **estimate_as_json("both_right", steered.both_right),
            **estimate_as_json("changed", steered.changed),
        }
    hard = model.hard and {
        **estimate_as_json("accuracy", model.hard.accuracy),
        **{"records": model.hard.records, "samples": model.hard.samples, "unparsed": model.hard.unparsed},
    }
    return {
        "records": model.records,
        **estimate_as_json("accuracy", model.accuracy),
        "unparsed": model.unparsed,
        "hard": hard,
        "benchmarks": benchmarks,
        "average": {row.task: _row_as_json(row) for row in model.averages},
        **estimate_as_json("overall_f1", model.overall),
        **({"steerability": steerability} if steerability else {}),
    }


def estimate_as_json(name: str, estimate: Estimate | None) -> dict[str, Any]:
    """Return a value under ``name`` and its interval under ``name_interval``; null if there is none."""
    if estimate is None:
        return {name: None, f"{name}_interval": None}
    interval = None if estimate.low is None else [estimate.low, estimate.high]
    return {name: estimate.value, f"{name}_interval": interval}


def flat(rows: Iterable[TaskScore]) -> Iterator[TaskScore]:
    """Yield each row, then its readings."""
    for row in rows:
        yield row
        yield from row.readings.values()


def one_sided(row: TaskScore) -> bool:
    """Return whether no record is of the positive class, so that a false-positive rate is all there is."""
    return row.positive_f1.value is None and row.false_positive_rate.value is not None


def headline_cell(row: TaskScore | None) -> Cell:
    """Return the F1 of the positive class; the false-positive rate, marked as such, if no record is of that class."""
    if row is None or not one_sided(row):
        return estimate_cell(row.positive_f1 if row else None)
    rate = estimate_cell(row.false_positive_rate)
    return Cell(f"FPR {rate.text}", rate.below)


def class_f1(model: ModelScore, task: str, label: str) -> Estimate | None:
    """Return a model's F1 of one class over all benchmarks; None if the task has no gold labels."""
    return next((average.f1[label] for average in model.averages if average.task == task), None)


def reading_f1(model: ModelScore, task: str, reading: Reading) -> Estimate | None:
    """Return a model's F1 of a reading's positive class over all benchmarks; None if the task has no gold labels."""
    averages = (row for row in model.averages if row.task == task)
    return next((row.readings[reading].positive_f1 for row in averages), None)


def _benchmark_table(model: ModelScore) -> Table:
    headings = ("benchmark", "task", "n", "F1", "accuracy", "recall", "FPR", "unparsed", "F1 of others")
    rows = []
    for row in _rows(model):
        others = "\n".join(f"{label} {estimate_cell(f1).text}" for label, f1 in row.f1.items() if label != row.positive)
        scores = (row.positive_f1, row.accuracy, row.recall, row.false_positive_rate)
        names = [Cell(row.benchmark), Cell(row.task), Cell(str(row.n))]
        rows.append([*names, *map(estimate_cell, scores), Cell(str(row.unparsed)), Cell(others)])
    if len(model.benchmarks) > len(model.averages):
        total = Cell(str(sum(row.n for row in model.averages)))
        rows.append([Cell(AVERAGE), Cell("all"), total, estimate_cell(model.overall), *[Cell("")] * 5])
    return Table(model.model, headings, rows, text_columns=2)


def _f1_table(columns: Sequence[tuple[ModelScore, Mode]], show_modes: bool) -> Table:
    keys = {(row.benchmark, row.task): row.n for model, _ in columns for row in flat(model.benchmarks)}
    keys |= {(row.benchmark, row.task): row.n for model, _ in columns for row in flat(model.averages)}
    headings = [f"{model.model}\n{mode}" if show_modes else model.model for model, mode in columns]
    scores = [{(row.benchmark, row.task): row for row in _rows(model)} for model, _ in columns]
    rows = [
        [
            Cell(benchmark),
            Cell(task),
            Cell(str(n)),
            *(headline_cell(by_key.get((benchmark, task))) for by_key in scores),
        ]
        for (benchmark, task), n in keys.items()
    ]
    overall = [estimate_cell(model.overall) for model, _ in columns]
    rows.append([Cell(AVERAGE), Cell("all"), Cell(str(max(model.records for model, _ in columns))), *overall])
    return Table("F1 of the positive class", ("benchmark", "task", "n", *headings), rows, text_columns=2)


def _rows(model: ModelScore) -> Iterator[TaskScore]:
    yield from flat(model.benchmarks)
    yield from flat(model.averages)


def _row_as_json(row: TaskScore) -> dict[str, Any]:
    per_class = {label: estimate_as_json("f1", f1) for label, f1 in row.f1.items()}
    binary = {name: _row_as_json(reading) for name, reading in row.readings.items()}
    return {
        "n": row.n,
        **estimate_as_json("f1", row.positive_f1),
        **estimate_as_json("accuracy", row.accuracy),
        **estimate_as_json("recall", row.recall),
        **estimate_as_json("false_positive_rate", row.false_positive_rate),
        "unparsed": row.unparsed,
        "f1_per_class": {label: values["f1"] for label, values in per_class.items()},
        "f1_per_class_interval": {label: values["f1_interval"] for label, values in per_class.items()},
        **({"readings": binary} if binary else {}),
    }
