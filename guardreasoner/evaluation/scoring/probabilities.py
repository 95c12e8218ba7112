"""How well scores rank and how well they are calibrated: AUROC, AUPRC, calibration error, Brier score, recall at a
false-positive rate, with bootstrap intervals.

A score is the probability that a record is positive. A record without a score counts as the worst case, in every
number: as score 1 if it is negative, and as 0 if it is positive.

Records of one benchmark with equal score and class form a cell. All metrics depend on the records only through the
numbers of records in the cells, so each resample draws those numbers (:mod:`guardreasoner.evaluation.intervals`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guardreasoner.evaluation.intervals import Estimate, estimate, generator_for
from guardreasoner.evaluation.scoring.metrics import Array, percent
from guardreasoner.evaluation.scoring.readings import (
    Reading,
    positive_labels,
    positive_probability,
    reading_name,
    readings_of,
)
from guardreasoner.records import Record
from guardreasoner.tasks import Task

POOLED = "pooled"
"""Benchmark name of a score over the records of several benchmarks together."""

RATES = (0.01, 0.05)
"""False-positive rates at which recall is reported."""

BINS = 15
"""Equal-width bins of the calibration error and of the reliability diagram."""

PROBABILITY_RESAMPLES = 1_000
"""Largest number of resamples; each costs as much as the number of different scores."""

_MAX_DRAWS = 1 << 18
_MAX_ROC_POINTS = 200


@dataclass(frozen=True, slots=True)
class ScoredRecords:
    """Scores and classes of records with a gold label for a task.

    Args:
        benchmark: source of the records.
        scores: (N,) probability that a record is positive; NaN for an unscored record.
        positive: (N,) whether a record is positive.
    """

    benchmark: str
    scores: Array
    positive: NDArray[np.bool_]

    def unscored(self) -> int:
        """Return the number of records without a score."""
        return int(np.isnan(self.scores).sum())

    def worst_case(self) -> Array:
        """Return (N,) scores in which an unscored record has 0 if it is positive, else 1."""
        return np.where(np.isnan(self.scores), np.where(self.positive, 0.0, 1.0), self.scores)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Records whose scores lie in one of the bins.

    Args:
        n: number of records.
        mean_score: their mean score.
        positive_share: share of positive records among them.
    """

    n: int
    mean_score: float
    positive_share: float


@dataclass(frozen=True, slots=True)
class ProbabilityScore:
    """Quality of one kind of score on one task, in percent; on one benchmark, or on all of them together.

    Args:
        benchmark: source of the records; ``POOLED`` for those of all benchmarks.
        task: name of the task; of a task with ordered labels, that of the reading.
        kind: kind of the scores.
        n: number of records with a gold label for the task.
        positives: number of positive records among them.
        unscored: number of records without a score.
        auroc: area under the ROC curve; undefined with one class only.
        auprc: area under the precision-recall curve (average precision); undefined with one class only.
        calibration_error: expected calibration error with ``BINS`` equal-width bins.
        brier: Brier score, the mean squared difference between score and class.
        recall_at: by false-positive rate, the largest recall of a threshold with at most that rate; not interpolated.
            Undefined without positive records, and with fewer than 1 / rate negative ones.
        roc: points (false-positive rate, recall) of the ROC curve from (0, 0) to (100, 100), at most 200 of them.
        reliability: the bins that hold records.
    """

    benchmark: str
    task: str
    kind: str
    n: int
    positives: int
    unscored: int
    auroc: Estimate
    auprc: Estimate
    calibration_error: Estimate
    brier: Estimate
    recall_at: Mapping[float, Estimate]
    roc: tuple[tuple[float, float], ...]
    reliability: tuple[ReliabilityBin, ...]


def needed_negatives(rate: float) -> int:
    """Return how many negative records the recall at a false-positive rate needs, so that one of them may be wrong."""
    return int(np.ceil(round(1 / rate, 9)))


def probability_scores(
    records: Sequence[Record],
    scores: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]],
    tasks: Sequence[Task],
    resamples: int,
    seed: int = 0,
) -> tuple[ProbabilityScore, ...]:
    """Score every kind of score by task and benchmark, and over the pooled benchmarks if there are several.

    A task with ordered labels is scored under both readings, "response (strict)" and "response (loose)".

    Args:
        records: records with gold labels; a record's ``source`` is its benchmark.
        scores: probabilities by kind, record id, task and label.
        tasks: tasks to score; one that no record has a score for is left out.
        resamples: number of bootstrap resamples; at most ``PROBABILITY_RESAMPLES`` are drawn. 0 for no intervals.
        seed: seed of the bootstrap.
    """
    rows: list[ProbabilityScore] = []
    for name, task, reading in (named for each in tasks for named in _named_readings(each)):
        kinds = []
        for kind, by_record in scores.items():
            benchmarks = scored_records(records, by_record, task, reading)
            if all(benchmark.unscored() == len(benchmark.scores) for benchmark in benchmarks):
                continue
            groups = [(benchmark.benchmark, [benchmark]) for benchmark in benchmarks]
            groups += [(POOLED, benchmarks)] if len(benchmarks) > 1 else []
            kinds.append([_probability_score(source, name, kind, group, resamples, seed) for source, group in groups])
        rows += [row for rows_of_kinds in zip(*kinds, strict=True) for row in rows_of_kinds]  # kinds side by side
    return tuple(rows)


def _named_readings(task: Task) -> list[tuple[str, Task, Reading]]:
    """Return the readings of a task with their names; one with the name of the task unless its labels are ordered."""
    readings = readings_of(task)
    return [(reading_name(task.name, reading), task, reading) for reading in readings] or [(task.name, task, "strict")]


def scored_records(
    records: Sequence[Record],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    task: Task,
    reading: Reading = "strict",
) -> list[ScoredRecords]:
    """Return the scores of the records with a gold label for a task, by benchmark in order of first occurrence.

    Args:
        records: records with gold labels.
        scores: probabilities of one kind by record id, task and label.
        task: the task.
        reading: how the middle labels of an ordered task count.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.labels.get(task.name) is not None:
            groups.setdefault(record.source, []).append(record)
    positives = positive_labels(task, reading)
    result = []
    for benchmark, group in groups.items():
        found = (positive_probability(scores.get(record.id, {}).get(task.name), task, reading) for record in group)
        values = np.array([np.nan if value is None else value for value in found])
        is_positive = np.array([record.labels[task.name] in positives for record in group])
        result.append(ScoredRecords(benchmark, values, is_positive))
    return result


def joined(benchmarks: Sequence[ScoredRecords]) -> tuple[Array, NDArray[np.bool_]]:
    """Return the (N,) scores, NaN for an unscored record, and the (N,) classes of the records of all benchmarks."""
    scores = np.concatenate([np.empty(0), *(benchmark.scores for benchmark in benchmarks)])
    return scores, np.concatenate([np.empty(0, bool), *(benchmark.positive for benchmark in benchmarks)])


def probability_metrics(counts: Array, scores: Array, positive: NDArray[np.bool_]) -> Array:
    """Return AUROC, AUPRC, calibration error, Brier score, and the recall at each of ``RATES``, in percent.

    Args:
        counts: (R, C) number of records in each cell, for each of R samples.
        scores: (C,) score of each cell; several cells may have one score.
        positive: (C,) class of each cell.

    Returns:
        (R, 4 + len(RATES)); NaN where undefined.
    """
    # The errors of a bin are summed before the absolute value is taken.
    error = scores - positive
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    binned = np.zeros((len(scores), BINS), counts.dtype)
    binned[np.arange(len(scores)), bins] = error
    total = counts.sum(axis=1)
    calibration_error = percent(np.abs(counts @ binned).sum(axis=1), total)
    brier = percent(counts @ (error**2).astype(counts.dtype), total)

    # From the highest score to the lowest, with the cells of one score together: a threshold takes all or none of them.
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    ordered = counts[:, order]
    hits = ordered * positive[order]
    false_hits = ordered - hits
    if len(starts) < len(order):
        hits, false_hits = (np.add.reduceat(values, starts, axis=1) for values in (hits, false_hits))
    true_positives, false_positives = hits.cumsum(axis=1), false_hits.cumsum(axis=1)
    positives, negatives = true_positives[:, -1], false_positives[:, -1]
    ranked = _row_products(false_hits, true_positives) - _row_products(false_hits, hits) / 2  # a tie counts half
    auroc = percent(ranked, positives * negatives)
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    defined = np.where(negatives > 0, positives, 0)
    auprc = percent(_row_products(hits, precision), defined)
    recalls = []
    for rate in RATES:
        allowed = (false_positives <= rate * negatives[:, None] + 1e-6).sum(axis=1)
        reached = np.take_along_axis(true_positives, np.maximum(allowed - 1, 0)[:, None], axis=1)[:, 0]
        recalls.append(percent(np.where(allowed > 0, reached, 0), defined))
    return np.stack([auroc, auprc, calibration_error, brier, *recalls], axis=1)


def _row_products(first: Array, second: Array) -> Array:
    """Return the (R,) sums of the products of two (R, C) arrays, summed in double precision."""
    return np.einsum("ij,ij->i", first, second, dtype=np.float64)


def _probability_score(
    name: str, task: str, kind: str, benchmarks: Sequence[ScoredRecords], resamples: int, seed: int
) -> ProbabilityScore:
    scores = np.concatenate([benchmark.worst_case() for benchmark in benchmarks])
    positive = np.concatenate([benchmark.positive for benchmark in benchmarks])
    values = _resampled_values(benchmarks, min(resamples, PROBABILITY_RESAMPLES), seed, f"{task}/{kind}")
    negatives = int((~positive).sum())
    for column, rate in enumerate(RATES):
        if negatives < needed_negatives(rate):
            values[:, 4 + column] = np.nan
    auroc, auprc, calibration_error, brier, *recalls = (estimate(column) for column in values.T)
    return ProbabilityScore(
        benchmark=name,
        task=task,
        kind=kind,
        n=len(scores),
        positives=int(positive.sum()),
        unscored=sum(benchmark.unscored() for benchmark in benchmarks),
        auroc=auroc,
        auprc=auprc,
        calibration_error=calibration_error,
        brier=brier,
        recall_at=dict(zip(RATES, recalls, strict=True)),
        roc=_roc_points(scores, positive),
        reliability=_reliability(scores, positive),
    )


def _resampled_values(benchmarks: Sequence[ScoredRecords], resamples: int, seed: int, name: str) -> Array:
    """Return (1 + resamples, M) values of the records themselves and of resamples within each benchmark."""
    cells = [
        np.unique(np.column_stack([benchmark.worst_case(), benchmark.positive]), axis=0, return_counts=True)
        for benchmark in benchmarks
    ]
    generators = [generator_for(seed, f"{benchmark.benchmark}/{name}") for benchmark in benchmarks]
    scores, positive = np.concatenate([rows for rows, _ in cells]).T
    observed = np.concatenate([counts for _, counts in cells]).astype(np.float64)
    values = [probability_metrics(observed[None], scores, positive == 1)]
    block = max(1, _MAX_DRAWS // len(scores))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        draws = [
            _drawn_counts(counts, size, generator) for generator, (_, counts) in zip(generators, cells, strict=True)
        ]
        # Single precision is exact for numbers of records, and twice as fast.
        values.append(probability_metrics(np.hstack(draws).astype(np.float32), scores, positive == 1))
    return np.concatenate(values)


def _drawn_counts(counts: NDArray[np.int_], size: int, generator: np.random.Generator) -> NDArray[np.int_]:
    """Return (size, C) numbers of records in each of C cells, when as many records are drawn with replacement."""
    n, cells = int(counts.sum()), len(counts)
    if cells < n // 4:
        return generator.multinomial(n, counts / n, size=size)
    # Nearly every record is a cell of its own: drawing the records is faster, and has the same distribution.
    cell_of_record = np.repeat(np.arange(cells), counts)
    drawn = cell_of_record[generator.integers(n, size=(size, n))] + cells * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * cells).reshape(size, cells)


def _roc_points(scores: Array, positive: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    if positive.all() or not positive.any():
        return ()
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    true_positives, false_positives = np.cumsum(positive[order])[ends], np.cumsum(~positive[order])[ends]
    recall = np.concatenate([[0.0], 100 * true_positives / positive.sum()])
    rate = np.concatenate([[0.0], 100 * false_positives / (~positive).sum()])
    if len(recall) > _MAX_ROC_POINTS:  # evenly along the curve
        along = np.linspace(0, recall[-1] + rate[-1], _MAX_ROC_POINTS)
        kept = np.unique(np.searchsorted(recall + rate, along).clip(max=len(recall) - 1))
        recall, rate = recall[kept], rate[kept]
    return tuple(zip(rate.tolist(), recall.tolist(), strict=True))


def _reliability(scores: Array, positive: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    return tuple(
        ReliabilityBin(int(inside.sum()), float(scores[inside].mean()), float(positive[inside].mean()))
        for inside in (bins == number for number in range(BINS))
        if inside.any()
    )
