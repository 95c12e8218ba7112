"""The outcome of a calibration: false-positive rate, recall and F1 at its threshold, and the share of each band."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guardreasoner.evaluation.calibration import BANDS, Band, Calibration
from guardreasoner.evaluation.calibration.fit import new_set_interval
from guardreasoner.evaluation.intervals import Estimate, Share, estimate, generator_for, resampled_sums
from guardreasoner.evaluation.scoring.metrics import Array, percent
from guardreasoner.evaluation.scoring.probabilities import POOLED, ScoredRecords, scored_records
from guardreasoner.records import Record
from guardreasoner.tasks import Task


@dataclass(frozen=True, slots=True)
class CalibratedScore:
    """Outcome of a calibration, in percent; on one benchmark, or on all of them together.

    Args:
        benchmark: source of the records; ``POOLED`` for those of all benchmarks.
        task: name of the task; of a task with ordered labels, that of the reading.
        kind: kind of the scores.
        threshold: score from which a verdict is positive.
        n: number of records with a gold label for the task.
        positives: number of positive records among them.
        f1: F1 of the positive side. An unscored record counts as wrong.
        recall: share of positive records that reach the threshold.
        false_positive_rate: share of negative records that reach it or have no score.
        expected: 95 % interval of that rate which the calibration states for as many negative records; None if there
            are none, or for one benchmark of several.
        bands: share of the records in each band.
        positive_bands: share of the positive records in each band.
    """

    benchmark: str
    task: str
    kind: str
    threshold: float
    n: int
    positives: int
    f1: Estimate
    recall: Estimate
    false_positive_rate: Estimate
    expected: tuple[float, float] | None
    bands: Mapping[Band, Share]
    positive_bands: Mapping[Band, Share]

    @property
    def is_expected(self) -> bool:
        """Whether the false-positive rate lies in the stated interval."""
        rate = self.false_positive_rate.value
        return self.expected is None or rate is None or self.expected[0] - 1e-9 <= rate <= self.expected[1] + 1e-9


def calibrated_scores(
    records: Sequence[Record],
    scores: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]],
    task: Task,
    calibration: Calibration,
    resamples: int,
    seed: int = 0,
) -> list[CalibratedScore]:
    """Return the outcome on each benchmark and, if there are several, on all of them together.

    Args:
        records: records with gold labels; those without one for the task are left out.
        scores: probabilities by kind, record id, task and label.
        task: the task of the calibration.
        calibration: the calibration.
        resamples: number of bootstrap resamples; 0 for no intervals.
        seed: seed of the bootstrap.
    """
    benchmarks = scored_records(records, scores.get(calibration.score, {}), task, calibration.ordered or "strict")
    sums = [
        resampled_sums(
            _outcomes(benchmark, calibration), resamples, generator_for(seed, f"{benchmark.benchmark}/bands")
        )
        for benchmark in benchmarks
    ]
    if len(benchmarks) == 1:
        return [_score(benchmarks[0].benchmark, benchmarks, sums[0], calibration, is_all=True)]
    rows = [
        _score(one.benchmark, [one], values, calibration, is_all=False)
        for one, values in zip(benchmarks, sums, strict=True)
    ]
    return [*rows, _score(POOLED, benchmarks, np.sum(sums, axis=0), calibration, is_all=True)] if rows else []


def band_shares(bands: Sequence[Band]) -> dict[Band, Share]:
    """Return the share of each band."""
    return {band: Share(sum(one == band for one in bands), len(bands)) for band in BANDS}


def _outcomes(benchmark: ScoredRecords, calibration: Calibration) -> Array:
    """Return (N, 4): true positive, false positive, missed, true negative."""
    reached = benchmark.worst_case() >= calibration.block
    positive = benchmark.positive
    cells = (positive & reached, ~positive & reached, positive & ~reached, ~positive & ~reached)
    return np.column_stack(cells).astype(np.float64)


def _score(
    name: str, benchmarks: Sequence[ScoredRecords], sums: Array, calibration: Calibration, is_all: bool
) -> CalibratedScore:
    true_positives, false_positives, missed, true_negatives = sums.T
    total = 2 * true_positives + false_positives + missed
    negatives = int(false_positives[0] + true_negatives[0])
    expected = None
    if is_all and negatives:
        low, high = new_set_interval(calibration.false_positives, calibration.negatives, negatives)
        expected = (100 * low, 100 * high)
    positive: NDArray[np.bool_] = np.concatenate([benchmark.positive for benchmark in benchmarks])
    bands = [calibration.band(float(score)) for benchmark in benchmarks for score in benchmark.scores]
    return CalibratedScore(
        benchmark=name,
        task=calibration.name,
        kind=calibration.score,
        threshold=calibration.block,
        n=len(bands),
        positives=int(positive.sum()),
        f1=estimate(percent(2 * true_positives, np.where(true_positives + missed > 0, total, 0))),
        recall=estimate(percent(true_positives, true_positives + missed)),
        false_positive_rate=estimate(percent(false_positives, false_positives + true_negatives)),
        expected=expected,
        bands=band_shares(bands),
        positive_bands=band_shares([band for band, is_one in zip(bands, positive, strict=True) if is_one]),
    )
