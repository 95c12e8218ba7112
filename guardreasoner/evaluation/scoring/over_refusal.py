"""Over-refusal: the false-positive rate on harmless requests that look harmful."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardreasoner.evaluation.intervals import RESAMPLES, Estimate
from guardreasoner.evaluation.scoring import TaskScore
from guardreasoner.evaluation.scoring.labels import NO_LABEL, BenchmarkLabels, Mode
from guardreasoner.evaluation.scoring.metrics import FALSE_POSITIVE_RATE, Array
from guardreasoner.evaluation.scoring.pools import RunLabels, score_pools
from guardreasoner.evaluation.scoring.readings import reading_name, readings_of
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

    It is measured on the task "request" or, if there is none, on the first.

    Args:
        runs: labels of each run, of the same records.
        records: the records.
        tasks: tasks to score.
        mode: how unparsed answers count.
        resamples: number of bootstrap resamples; 0 for no intervals.
        seed: seed of the bootstrap.
    """
    task = next((task for task in tasks if task.name == "request"), tasks[0])
    pools = _pools(records, runs[0][0], list(tasks).index(task), task)
    if not pools:
        return []
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


def _pools(
    records: Iterable[Record], labels: Sequence[BenchmarkLabels], column: int, task: Task
) -> dict[str, Collection[str]]:
    """Return the ids of the look-alikes whose gold label is harmless: not positive or, of ordered labels, the first."""
    marked = {record.id for record in records if is_lookalike(record)}
    positive = task.labels.index(task.positive)
    pools: dict[str, Collection[str]] = {}
    for one in labels:
        gold = one.gold[:, column]
        harmless = gold == 0 if task.ordered else (gold != positive) & (gold != NO_LABEL)
        if ids := marked.intersection(one.ids[row] for row in np.flatnonzero(harmless)):
            pools[one.benchmark] = ids
    return pools | ({ALL_LOOKALIKES: set().union(*pools.values())} if len(pools) > 1 else {})
