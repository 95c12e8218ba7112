"""Bootstrap and Wilson intervals against hand-derived numbers and brute-force resampling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.evaluation.intervals import (
    Estimate,
    Share,
    estimate,
    generator_for,
    resampled_seeds,
    resampled_sums,
    wilson,
)

FEATURES = np.array([[1, 0, 1]] * 5 + [[0, 1, 1]] * 3 + [[0, 0, 1]] * 2, dtype=np.float64)


def test_first_row_is_the_observed_sum_and_each_resample_has_n_records() -> None:
    sums = resampled_sums(FEATURES, 50, generator_for(0, "b"))
    assert sums.shape == (51, 3)
    assert sums[0].tolist() == [5, 3, 10]
    assert (sums[:, 2] == 10).all()
    assert (sums[:, 0] + sums[:, 1] <= 10).all()


def test_multinomial_draws_match_drawing_records() -> None:
    sums = resampled_sums(FEATURES, 40_000, generator_for(0, "b"))[1:]
    rng = np.random.default_rng(7)
    by_record = FEATURES[rng.integers(len(FEATURES), size=(40_000, len(FEATURES)))].sum(axis=1)
    # Tolerance: four standard errors of a mean over 40,000; the standard deviations of the counts are below 1.6.
    assert np.abs(sums.mean(axis=0) - by_record.mean(axis=0)).max() < 4 * 1.6 * (2 / 40_000) ** 0.5
    assert np.cov(sums[:, :2].T) == pytest.approx(np.cov(by_record[:, :2].T), abs=0.1)
    # 10 draws; variance 10 · ½ · ½. The two columns exclude each other: covariance −10 · ½ · 0.3.
    assert np.cov(sums[:, :2].T) == pytest.approx(np.array([[2.5, -1.5], [-1.5, 2.1]]), abs=0.1)
    assert np.percentile(sums[:, 0], [2.5, 97.5]).tolist() == np.percentile(by_record[:, 0], [2.5, 97.5]).tolist()


def test_block_size_does_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = resampled_sums(FEATURES, 100, generator_for(3, "b"))
    monkeypatch.setattr("guardreasoner.evaluation.intervals._MAX_DRAWS", 7)
    assert (resampled_sums(FEATURES, 100, generator_for(3, "b")) == expected).all()


def test_draws_depend_only_on_seed_and_name() -> None:
    first, repeated, other_seed, other_name = (
        resampled_sums(FEATURES, 100, generator_for(*key)) for key in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    )
    assert (first == repeated).all()
    assert (first != other_seed).any()
    assert (first != other_name).any()


def test_identical_records_have_no_variance() -> None:
    assert (resampled_sums(np.ones((4, 2)), 10, generator_for(0, "b")) == 4).all()
    assert resampled_sums(np.ones((4, 2)), 0, generator_for(0, "b")).tolist() == [[4, 4]]


def test_estimate_by_hand() -> None:
    # 0 to 100 in steps of 1: the 2.5th percentile is 2.5.
    result = estimate(np.array([40.0, *range(101)]))
    assert result == Estimate(40, 2.5, 97.5, 0)
    assert result.interval == (2.5, 97.5)


def test_undefined_resamples_are_left_out_and_counted() -> None:
    nan = float("nan")
    assert estimate(np.array([1.0, 1.0, nan, 1.0, nan])) == Estimate(1, 1, 1, 2)
    assert estimate(np.array([nan, 1.0])) == Estimate(None)
    assert estimate(np.array([1.0, nan])) == Estimate(1, left_out=1)
    assert estimate(np.array([1.0])) == Estimate(1)
    assert Estimate(1).interval is None


@given(st.integers(1, 5), st.integers(0, 20))
def test_seed_weights_sum_to_one(seeds: int, resamples: int) -> None:
    weights = resampled_seeds(seeds, resamples, generator_for(0, "r"))
    assert weights.shape == (1 + resamples, seeds)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert weights[0] == pytest.approx(1 / seeds)
    if seeds == 1:
        assert (weights == 1).all()


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # Newcombe 1998, table I
        *((81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0, 16.11), (1, 29, 0.61, 17.18)),
        # by hand: z² = 3.8415; (0.5 + z²/20) / (1 + z²/10) ± z √(0.025 + z²/400) / (1 + z²/10)
        *((5, 10, 23.66, 76.34), (0, 10, 0, 27.75)),
    ],
)
def test_wilson_interval(count: int, total: int, low: float, high: float) -> None:
    share = Share(count, total)
    assert share.interval == pytest.approx((low, high), abs=0.01)
    assert share.estimate() == Estimate(share.percent, *(share.interval or ()))
    assert wilson(count / total, total).interval == share.interval


def test_share_of_everything_and_of_nothing() -> None:
    assert Share(5, 5).percent == 100
    assert wilson(1.0, 10).high == pytest.approx(100)
    assert (Share(0, 0).percent, Share(0, 0).interval, Share(0, 0).estimate()) == (None, None, Estimate(None))


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_interval_contains_the_share(count: int, total: int) -> None:
    result = Share(min(count, total), total).estimate()
    assert result.value is not None
    assert result.low is not None
    assert result.high is not None
    assert 0 <= result.low <= result.value + 1e-9
    assert result.value - 1e-9 <= result.high <= 100 + 1e-9
