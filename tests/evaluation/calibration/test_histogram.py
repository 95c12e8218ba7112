"""Histograms of scores, and the distance between two."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration.histogram import (
    EDGES,
    ScoreHistogram,
    kolmogorov_smirnov,
    stability_index,
    stability_index_by_chance,
)


def test_a_score_at_an_edge_belongs_to_the_interval_above() -> None:
    histogram = ScoreHistogram.of([0.0, 0.5, 1.0, None, float("nan")])
    assert histogram.counts[0] == histogram.counts[-1] == histogram.counts[EDGES.index(0.5) + 1] == 1
    assert (histogram.scored, histogram.unscored) == (3, 2)
    assert ScoreHistogram.from_json(histogram.as_json(), "x") == histogram


def test_other_intervals_are_refused() -> None:
    with pytest.raises(InputError, match="m: a score histogram with other intervals"):
        ScoreHistogram.from_json({"edges": [0.5], "counts": [1, 2], "unscored": 0}, "m")


def test_the_same_scores_have_not_shifted() -> None:
    histogram = ScoreHistogram.of(np.linspace(0, 1, 101))
    assert stability_index(histogram, histogram) == 0
    assert kolmogorov_smirnov(histogram, histogram) == (0, 1)


def test_the_stability_index_of_two_intervals_by_hand() -> None:
    before, after = ScoreHistogram.of([0.45] * 30 + [0.55] * 10), ScoreHistogram.of([0.45] * 10 + [0.55] * 30)
    bins = len(EDGES) + 2  # an interval for the unscored, and half a record in each
    p, q = 30.5 / (40 + bins / 2), 10.5 / (40 + bins / 2)
    assert stability_index(before, after) == pytest.approx(2 * (q - p) * np.log(q / p))


@pytest.mark.parametrize(("first", "second"), [(240, 60), (2000, 1000)])
def test_without_a_shift_the_index_stays_below_what_chance_explains(first: int, second: int) -> None:
    rng = np.random.default_rng(0)
    below = 0
    for _ in range(200):
        before, after = (ScoreHistogram.of(rng.beta(0.4, 0.4, size)) for size in (first, second))
        below += stability_index(before, after) < stability_index_by_chance(before, after)
    assert below >= 184  # 95 % are 190; more for small samples, since half a record is added to each interval
    shifted = ScoreHistogram.of(rng.beta(1.5, 0.4, second))
    assert stability_index(before, shifted) > stability_index_by_chance(before, shifted)


def test_kolmogorov_smirnov_is_at_most_that_of_the_scores() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.beta(0.5, 0.5, 2000), rng.beta(0.6, 0.4, 1000)
    found = kolmogorov_smirnov(ScoreHistogram.of(first), ScoreHistogram.of(second))
    assert found is not None
    exact = ks_2samp(first, second)
    assert 0.8 * exact.statistic < found[0] <= exact.statistic
    assert found[1] >= exact.pvalue * 0.9
    assert kolmogorov_smirnov(ScoreHistogram(), ScoreHistogram.of(first)) is None
