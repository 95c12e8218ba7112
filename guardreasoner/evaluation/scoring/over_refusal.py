"""Over-refusal: the false-positive rate on harmless requests that look harmful."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from guardreasoner.evaluation.intervals import RESAMPLES, Estimate
from guardreasoner.evaluation.scoring import TaskScore
from guardreasoner.evaluation.scoring.labels import NO_LABEL, BenchmarkLabels, Mode
from guardreasoner.evaluation.scoring.metrics import FALSE_POSITIVE_RATE, Array
from guardreasoner.evaluation.scoring.pools import RunLabels, score_pools
from guardreasoner.evaluation.scoring.readings import flagging_labels, reading_name, readings_of
from guardreasoner.records import Record
from guardreasoner.sources.lookalikes import is_lookalike
from guardreasoner.tasks import Task

ALL_LOOKALIKES = "all look-alikes"
"""Name of the row over all benchmarks."""


@dataclass(frozen=True, slots=True)
class OverRefusal:
    """Over-refusal of one run.

    Args:
        rows: scores on the harmless look-alikes of each benchmark and, if there are several, of all together.
        resampled: false-positive rate of the last row and in each resample, (1 + resamples,), by the name of the task
            or, with ordered labels, of its readings.
    """

    rows: tuple[TaskScore, ...]
    resampled: Mapping[str, Array]


def over_refusal(
    runs: Sequence[RunLabels],
    records: Iterable[Record],
    tasks: Sequence[Task],
    mode: Mode,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[OverRefusal]:
    """Return the over-refusal of runs, with the same resamples for all; nothing if no record is a harmless look-alike.

    It is measured on the first task that flags and has a gold label that does not flag for a look-alike.

    Args:
        runs: labels of each run, of the same records.
        records: the records.
        tasks: tasks to score.
        mode: how unparsed answers count.
        resamples: number of bootstrap resamples; 0 for no intervals.
        seed: seed of the bootstrap.
    """
    marked = {record.id for record in records if is_lookalike(record)}
    for column, task in enumerate(tasks):
        if task.flags and (pools := _pools(marked, runs[0][0], column, task)):
            return _measured(runs, pools, tasks, column, mode, resamples, seed)
    return []


def _measured(
    runs: Sequence[RunLabels],
    pools: Mapping[str, Collection[str]],
    tasks: Sequence[Task],
    column: int,
    mode: Mode,
    resamples: int,
    seed: int,
) -> list[OverRefusal]:
    task = tasks[column]
    if task.flags == "others":
        runs = [[[_flagged(labels, column, task) for labels in file] for file in run] for run in runs]
        other = flagging_labels(task)[0]
        task = replace(task, labels=(task.positive, other), positive=other)
        tasks = [*tasks[:column], task, *tasks[column + 1 :]]
    scored = score_pools(runs, pools, tasks, mode, resamples, seed)
    found = []
    for run in scored:
        rows = [next(row for row in pool.rows if row.task == task.name) for pool in run]
        names = [reading_name(task.name, reading) for reading in readings_of(task)] or [task.name]
        found.append(
            OverRefusal(tuple(rows), {name: run[-1].resampled[name][:, FALSE_POSITIVE_RATE] for name in names})
        )
    return found


def rates(row: TaskScore) -> dict[str, Estimate]:
    """Return the false-positive rate by the name of the task or, with ordered labels, of its readings."""
    return {one.task: one.false_positive_rate for one in row.readings.values() or (row,)}


def _flagged(labels: BenchmarkLabels, column: int, task: Task) -> BenchmarkLabels:
    """Return labels whose column of a task holds 0 for a label that does not flag, and 1 for one that does."""
    classes = np.array([*(int(label in flagging_labels(task)) for label in task.labels), NO_LABEL])  # -1 is NO_LABEL
    gold, predicted = labels.gold.copy(), labels.predicted.copy()
    gold[:, column], predicted[:, column] = classes[gold[:, column]], classes[predicted[:, column]]
    return replace(labels, gold=gold, predicted=predicted)


def _pools(
    marked: Collection[str], labels: Sequence[BenchmarkLabels], column: int, task: Task
) -> dict[str, Collection[str]]:
    """Return the ids of the look-alikes whose gold label does not flag, by benchmark."""
    flagging = [task.labels.index(label) for label in flagging_labels(task)]
    pools: dict[str, Collection[str]] = {}
    for one in labels:
        gold = one.gold[:, column]
        harmless = (gold != NO_LABEL) & ~np.isin(gold, flagging)
        if ids := {one.ids[row] for row in np.flatnonzero(harmless)}.intersection(marked):
            pools[one.benchmark] = ids
    return pools | ({ALL_LOOKALIKES: set().union(*pools.values())} if len(pools) > 1 else {})
