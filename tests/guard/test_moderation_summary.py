"""Summaries of moderated logs."""

from collections import Counter

import numpy as np

from guardreasoner.evaluation.calibration.fit import Wanted, choose_calibration
from guardreasoner.evaluation.calibration.histogram import ScoreHistogram
from guardreasoner.guard.moderation_summary import ModerationSummary, TaskSummary, drift_from_calibration


def test_the_calibration_counts_as_positive_what_a_moderation_counts() -> None:
    unscored, negative, positive = [np.nan] * 10, np.arange(90) / 100, np.linspace(0.9, 1, 100)
    scores = np.array([*unscored, *negative, *positive])
    histogram = ScoreHistogram.of(map(float, scores))
    calibration = choose_calibration(
        "validation",
        scores,
        np.repeat([False, True], 100),
        Wanted(0.2),
        task="request",
        score="direct",
        details={"histogram": histogram.as_json()},
    )
    blocked = int((scores >= calibration.block).sum())
    summary = TaskSummary(Counter({"harmful": 200}), positive=blocked, scores={"direct": histogram})
    drift = drift_from_calibration(calibration, ModerationSummary({"request": summary}), "guard.json")
    assert drift is not None
    assert drift.positive == (blocked / 200, blocked / 200)
