"""Choose thresholds: order statistics, intervals, and whether the reached rates lie in them."""

import numpy as np
import pytest
from calibration_coverage import SCORES, coverage

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration.fit import (
    Wanted,
    block_threshold,
    choose_calibration,
    long_run_interval,
    needed_records,
    new_set_interval,
    pass_threshold,
)


def test_the_threshold_is_just_above_an_order_statistic() -> None:
    scores = np.arange(99) / 100
    one = block_threshold(scores, 0.01, "")
    assert (one.errors, one.n, one.expected) == (0, 99, 0.01)
    assert one.value == np.nextafter(0.98, 1)
    five = block_threshold(scores, 0.05, "")
    assert (five.errors, five.expected) == (4, 0.05)
    assert (scores >= five.value).sum() == 4


def test_equal_scores_stay_together() -> None:
    scores = np.array([0.0] * 80 + [0.5] * 15 + [1.0] * 4)
    threshold = block_threshold(scores, 0.1, "")
    assert (threshold.errors, threshold.expected) == (4, 0.05)
    assert 0.5 < threshold.value < 0.51


def test_unscored_records_count_as_false_positives() -> None:
    scores = np.array([np.nan, np.nan, *np.arange(97) / 100])
    threshold = block_threshold(scores, 0.05, "")
    assert threshold.errors == 4
    assert (scores >= threshold.value).sum() == 2
    with pytest.raises(InputError, match="2 of 99 have no score"):
        block_threshold(scores, 0.02, "x")


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.05, 19), (0.5, 1), (0.3, 3), (0.001, 999), (0.07, 14)])
def test_how_many_records_are_needed(rate: float, needed: int) -> None:
    assert needed_records(rate) == needed
    block_threshold(np.linspace(0, 1, needed), rate, "")
    if needed > 1:
        with pytest.raises(InputError, match=f"at least {needed} are needed, found {needed - 1}"):
            block_threshold(np.linspace(0, 1, needed - 1), rate, "")


def test_passing_records() -> None:
    scores = np.arange(1, 100) / 100
    threshold = pass_threshold(scores, 0.05, "")
    assert (threshold.value, threshold.errors, threshold.expected) == (0.05, 4, 0.05)
    assert pass_threshold(np.full(30, np.nan), 0.05, "").value == 1


def test_intervals_by_hand() -> None:
    assert long_run_interval(0, 10) == (0, pytest.approx(1 - 0.025**0.1))
    assert long_run_interval(10, 10) == (pytest.approx(0.025**0.1), 1)
    assert long_run_interval(4, 99) == (pytest.approx(0.01111, abs=1e-4), pytest.approx(0.10016, abs=1e-4))
    # one new record after one negative one: both outcomes are likely
    assert new_set_interval(0, 1, 1) == (0, 1)
    assert new_set_interval(0, 99, 1) == (0, 0)
    low, high = new_set_interval(4, 99, 100_000)
    assert (low, high) == pytest.approx(long_run_interval(4, 99), abs=1e-3)


def test_bands_that_cross_leave_no_review() -> None:
    scores, positive = np.array([*np.linspace(0, 0.3, 99), *np.linspace(0.6, 1, 99)]), np.repeat([False, True], 99)
    chosen = choose_calibration("x", scores, positive, Wanted(0.01), task="request", score="direct")
    assert chosen.review == chosen.block == np.nextafter(0.3, 1)
    assert chosen.details["expected_miss_rate"] == 0.01
    assert {chosen.band(score) for score in scores} == {"block", "pass"}
    assert chosen.details["recall"] == 1


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ([np.nan] * 200, "no record has a direct score"),
        ([0.5] * 200, "the same direct score, 0.5"),
        ([1.0] * 5 + [0.1] * 95 + [1.0] * 50 + [0.5] * 50, "5 negative records have no lower score"),
    ],
)
def test_scores_that_allow_no_threshold_are_refused(scores: list[float], problem: str) -> None:
    positive = np.repeat([False, True], 100)
    with pytest.raises(InputError, match=problem) as error:
        choose_calibration("x", np.array(scores), positive, Wanted(0.02), task="request", score="direct")
    if "lower" in problem:
        assert error.value.hint == "the lowest rate that these scores allow is --fpr 0.0595"
        choose_calibration("x", np.array(scores), positive, Wanted(0.0595), task="request", score="direct")


@pytest.mark.parametrize("rate", [0.01, 0.05])
@pytest.mark.parametrize("name", SCORES)
def test_the_reached_rate_lies_in_the_stated_interval(name: str, rate: float) -> None:
    random = np.random.default_rng(3)
    found = coverage(SCORES[name](1_000, random), rate, 200, random)
    assert found.within >= 0.9
    assert found.reached <= 1.15 * rate  # on average over pools, at most the rate
