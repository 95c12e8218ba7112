"""Score some of the records, pooled over their benchmarks."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardreasoner.evaluation.intervals import generator_for, resampled_seeds
from guardreasoner.evaluation.scoring import TaskScore, model_score
from guardreasoner.evaluation.scoring.labels import BenchmarkLabels, Mode
from guardreasoner.evaluation.scoring.metrics import Array, mean_over_seeds, resample_scores
from guardreasoner.tasks import Task

RunLabels = Sequence[Sequence[BenchmarkLabels]]
"""Labels of one run by training seed, then by benchmark."""


@dataclass(frozen=True, slots=True)
class PoolScore:
    """Scores of one run on one pool.

    Args:
        rows: scores by task; the name of the pool stands for the benchmark.
        resampled: by task, and by reading of ordered labels, the scores as observed and in each resample.
    """

    rows: tuple[TaskScore, ...]
    resampled: Mapping[str, Array]


def score_pools(
    runs: Sequence[RunLabels],
    pools: Mapping[str, Collection[str]],
    tasks: Sequence[Task],
    mode: Mode,
    resamples: int,
    seed: int,
) -> list[list[PoolScore]]:
    """Return the scores of each run on each pool of records; in a resample, all runs have the same records.

    Args:
        runs: labels of each run, of the same records.
        pools: ids of the records of each pool, at least one, by the name of the pool.
        tasks: tasks to score.
        mode: how unparsed answers count.
        resamples: number of bootstrap resamples within the pool; 0 for no intervals.
        seed: seed of the bootstrap.
    """
    scores: list[list[PoolScore]] = [[] for _ in runs]
    for name, ids in pools.items():
        pooled = [[[_pool(labels, ids, name)] for labels in run] for run in runs]
        resampled = iter(resample_scores([file for run in pooled for file in run], tasks, mode, resamples, seed))
        for number, files in enumerate(pooled):
            weights = resampled_seeds(len(files), resamples, generator_for(seed, f"seeds of run {number}"))
            mean = mean_over_seeds([next(resampled) for _ in files], weights)
            rows = model_score("", files, mean, tasks, None).benchmarks
            scores[number].append(PoolScore(rows, {task: values for (_, task), values in mean.benchmarks.items()}))
    return scores


def _pool(labels: Sequence[BenchmarkLabels], ids: Collection[str], name: str) -> BenchmarkLabels:
    chosen = [np.array([record_id in ids for record_id in one.ids], dtype=bool) for one in labels]
    return BenchmarkLabels(
        name,
        tuple(record_id for one in labels for record_id in one.ids if record_id in ids),
        np.concatenate([one.gold[rows] for one, rows in zip(labels, chosen, strict=True)]),
        np.concatenate([one.predicted[rows] for one, rows in zip(labels, chosen, strict=True)]),
    )
