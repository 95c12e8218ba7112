"""Metrics of probabilities: equal to scikit-learn's, exact with ties, undefined where nothing can be said."""

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from guardreasoner.evaluation.scoring.probabilities import (
    POOLED,
    RATES,
    ProbabilityScore,
    needed_negatives,
    probability_metrics,
    probability_scores,
)
from guardreasoner.records import Record
from guardreasoner.tasks import GUARD_TASKS, Task

REQUEST = GUARD_TASKS[0]


def scored(
    gold: Sequence[bool], scores: Sequence[float | None], benchmarks: Sequence[str] = (), resamples: int = 0
) -> list[ProbabilityScore]:
    """Score records of one kind of score, "direct"."""
    sources = benchmarks or ["b"] * len(gold)
    labels = [{"request": "harmful" if one else "unharmful"} for one in gold]
    records = [Record(str(n), "p", labels=labels[n], source=sources[n]) for n in range(len(gold))]
    by_record = {
        str(number): {"request": {"harmful": score, "unharmful": 1 - score}}
        for number, score in enumerate(scores)
        if score is not None
    }
    return list(probability_scores(records, {"direct": by_record}, GUARD_TASKS, resamples))


@pytest.mark.parametrize("digits", [1, 2, 15])
def test_metrics_equal_those_of_scikit_learn(digits: int) -> None:
    random = np.random.default_rng(digits)
    gold = random.random(700) < 0.3
    scores = np.clip(random.normal(0.4, 0.2, 700) + 0.2 * gold, 0, 1).round(digits)
    (row,) = scored(list(gold), scores.tolist())
    assert row.auroc.value == pytest.approx(100 * roc_auc_score(gold, scores))
    assert row.auprc.value == pytest.approx(100 * average_precision_score(gold, scores))
    assert row.brier.value == pytest.approx(100 * brier_score_loss(gold, scores))
    rates, recalls, _ = roc_curve(gold, scores, drop_intermediate=False)
    for rate in RATES:
        assert row.recall_at[rate].value == pytest.approx(100 * recalls[rates <= rate + 1e-12].max())
    points = {(round(100 * x, 9), round(100 * y, 9)) for x, y in zip(rates.tolist(), recalls.tolist(), strict=True)}
    assert {(round(x, 9), round(y, 9)) for x, y in row.roc} <= points
    assert (row.roc[0], row.roc[-1]) == ((0, 0), (100, 100))
    assert (row.n, row.positives, row.unscored) == (700, gold.sum(), 0)


def test_calibration_error_by_hand() -> None:
    # two bins: 0.1 and 0.11 with one of two positive; 0.9 with all three positive
    (row,) = scored([True, False, True, True, True], [0.1, 0.11, 0.9, 0.9, 0.9])
    assert row.calibration_error.value == pytest.approx(100 * (abs(1 - 0.21) + 3 * 0.1) / 5)
    assert [(one.n, round(one.mean_score, 3), one.positive_share) for one in row.reliability] == [
        (2, 0.105, 0.5),
        (3, 0.9, 1.0),
    ]


def test_equal_scores_stay_together_at_a_false_positive_rate() -> None:
    # Of 100 negative records one has 4 of 4 votes and five have 3: at 5 % only those with 4 votes can be positive.
    gold = [False] * 100 + [True] * 10
    scores = [1.0] + [0.75] * 5 + [0.0] * 94 + [1.0] * 4 + [0.75] * 5 + [0.0]
    (row,) = scored(gold, scores)
    assert {rate: recall.value for rate, recall in row.recall_at.items()} == {0.01: 40, 0.05: 40}
    (row,) = scored(gold, [1.0, 1.0, *scores[2:]])
    assert {rate: recall.value for rate, recall in row.recall_at.items()} == {0.01: 0, 0.05: 40}


def test_an_unscored_record_counts_as_the_worst_case() -> None:
    gold = [True, True, False, False]
    (row,) = scored(gold, [0.9, None, 0.1, None])
    (worst,) = scored(gold, [0.9, 0.0, 0.1, 1.0])
    assert row.unscored == 2
    assert (row.auroc, row.auprc, row.brier, row.calibration_error) == (
        *(worst.auroc, worst.auprc, worst.brier, worst.calibration_error),
    )
    assert scored(gold, [None] * 4) == []


def test_what_cannot_be_said_is_undefined() -> None:
    for gold in ([True] * 30, [False] * 30):
        (row,) = scored(gold, [0.2] * 30, resamples=20)
        assert {value.value for value in (row.auroc, row.auprc, *row.recall_at.values())} == {None}
        assert row.brier.value is not None
        assert row.roc == ()
    assert [needed_negatives(rate) for rate in (*RATES, 0.003)] == [100, 20, 334]
    for negatives, defined in ((19, []), (20, [0.05]), (99, [0.05]), (100, [0.01, 0.05])):
        (row,) = scored([False] * negatives + [True], [0.2] * negatives + [0.4], resamples=20)
        assert [rate for rate, recall in row.recall_at.items() if recall.value is not None] == defined


def test_intervals_are_those_of_drawn_records() -> None:
    random = np.random.default_rng(0)
    gold = random.random(300) < 0.4
    scores = np.clip(random.normal(0.4, 0.2, 300) + 0.2 * gold, 0, 1)
    (row,) = scored(list(gold), scores.tolist(), resamples=1000)
    drawn = [(scores[one][gold[one]], scores[one][~gold[one]]) for one in random.integers(0, 300, (1000, 300))]
    expected = np.percentile([100 * (high[:, None] > low).mean() for high, low in drawn], [2.5, 97.5])
    assert row.auroc.interval == pytest.approx(expected, abs=0.6)


def test_several_samples_at_once_equal_one_at_a_time() -> None:
    random = np.random.default_rng(1)
    counts = random.integers(0, 3, (5, 40)).astype(float)
    scores, positive = random.random(40).round(1), random.random(40) < 0.5
    together = probability_metrics(counts, scores, positive)
    apart = np.concatenate([probability_metrics(row[None], scores, positive) for row in counts])
    np.testing.assert_allclose(together, apart)


def test_benchmarks_are_also_pooled_and_kinds_are_side_by_side() -> None:
    gold, scores = [True, False, False, True], [0.9, 0.3, 0.7, 0.6]
    rows = scored(gold, scores, ["b", "b", "c", "c"])
    assert [(row.benchmark, row.n, row.auroc.value) for row in rows] == [("b", 2, 100), ("c", 2, 0), (POOLED, 4, 75)]
    records = [Record(str(n), "p", labels={"request": "harmful"}, source=f"s{n % 2}") for n in range(4)]
    by_record = {str(n): {"request": {"harmful": 0.5, "unharmful": 0.5}} for n in range(4)}
    both = probability_scores(records, {"direct": by_record, "votes": by_record}, GUARD_TASKS, 0)
    assert [(row.benchmark, row.kind) for row in both] == [
        (name, kind) for name in ("s0", "s1", POOLED) for kind in ("direct", "votes")
    ]


def test_ordered_labels_are_scored_under_both_readings() -> None:
    task = Task("harm", "Harm", "how harmful?", ("safe", "controversial", "unsafe"), ordered=True)
    gold = ("safe", "controversial", "unsafe")
    records = [Record(str(n), "p", labels={"harm": label}, source="s") for n, label in enumerate(gold)]
    shares = {"0": (0.5, 0.5, 0.0), "1": (0.8, 0.2, 0.0), "2": (0.3, 0.3, 0.4)}
    by_record = {name: {"harm": dict(zip(gold, values, strict=True))} for name, values in shares.items()}
    rows = probability_scores(records, {"direct": by_record}, (task,), 0)
    # Strict: scores .5, .2, .7 for safe, positive, positive; loose: 0, 0, .4 for safe, safe, positive.
    assert [(row.task, row.positives, row.auroc.value) for row in rows] == [
        ("harm (strict)", 2, 50),
        ("harm (loose)", 1, 100),
    ]
