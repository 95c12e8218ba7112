import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.evaluation.intervals import estimate, generator_for, resampled_seeds, resampled_sums

FEATURES = np.array([[1, 0, 1]] * 5 + [[0, 1, 1]] * 3 + [[0, 0, 1]] * 2, dtype=np.float64)


def test_the_first_row_is_what_was_observed_and_every_resample_has_as_many_records() -> None:
    sums = resampled_sums(FEATURES, 50, generator_for(0, "b"))
    assert sums.shape == (51, 3)
    assert sums[0].tolist() == [5, 3, 10]
    assert (sums[:, 2] == 10).all()
    assert (sums[:, 0] + sums[:, 1] <= 10).all()


def test_it_is_what_drawing_the_records_themselves_gives() -> None:
    sums = resampled_sums(FEATURES, 40_000, generator_for(0, "b"))[1:]
    rng = np.random.default_rng(7)
    by_record = FEATURES[rng.integers(len(FEATURES), size=(40_000, len(FEATURES)))].sum(axis=1)
    # Four standard errors of a mean over 40,000; the counts' standard deviations are below 1.6.
    assert np.abs(sums.mean(axis=0) - by_record.mean(axis=0)).max() < 4 * 1.6 * (2 / 40_000) ** 0.5
    assert np.cov(sums[:, :2].T) == pytest.approx(np.cov(by_record[:, :2].T), abs=0.1)
    # Drawing 10 records of which half count 1: variance 10 · ½ · ½; the two columns exclude each other: −10 · ½ · 0.3.
    assert np.cov(sums[:, :2].T) == pytest.approx(np.array([[2.5, -1.5], [-1.5, 2.1]]), abs=0.1)
    assert np.percentile(sums[:, 0], [2.5, 97.5]).tolist() == np.percentile(by_record[:, 0], [2.5, 97.5]).tolist()


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resampled_sums(FEATURES, 100, generator_for(3, "b"))
    monkeypatch.setattr("guardreasoner.evaluation.intervals._AT_ONCE", 7)
    assert (resampled_sums(FEATURES, 100, generator_for(3, "b")) == whole).all()


def test_draws_depend_on_seed_and_name_alone() -> None:
    one, same, other, elsewhere = (
        resampled_sums(FEATURES, 100, generator_for(*key)) for key in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    )
    assert (one == same).all()
    assert (one != other).any()
    assert (one != elsewhere).any()


def test_records_that_are_all_alike_leave_nothing_to_draw() -> None:
    assert (resampled_sums(np.ones((4, 2)), 10, generator_for(0, "b")) == 4).all()
    assert resampled_sums(np.ones((4, 2)), 0, generator_for(0, "b")).tolist() == [[4, 4]]


def test_an_estimate_by_hand() -> None:
    # 0 to 100 in steps of 1: the 2.5th percentile is 2.5.
    found = estimate(np.array([40.0, *range(101)]))
    assert (found.value, found.low, found.high, found.left_out) == (40, 2.5, 97.5, 0)


def test_undefined_resamples_are_left_out_and_counted() -> None:
    nan = float("nan")
    found = estimate(np.array([1.0, 1.0, nan, 1.0, nan]))
    assert (found.low, found.high, found.left_out) == (1, 1, 2)
    assert estimate(np.array([nan, 1.0])).value is None
    assert estimate(np.array([1.0, nan])).left_out == 1
    for none in (np.array([1.0]), np.array([1.0, nan])):
        assert (estimate(none).value, estimate(none).low, estimate(none).high) == (1, None, None)


@given(st.integers(1, 5), st.integers(0, 20))
def test_seeds_are_weighted_by_how_often_they_are_drawn(seeds: int, resamples: int) -> None:
    weights = resampled_seeds(seeds, resamples, generator_for(0, "r"))
    assert weights.shape == (1 + resamples, seeds)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert weights[0] == pytest.approx(1 / seeds)
    if seeds == 1:
        assert (weights == 1).all()
