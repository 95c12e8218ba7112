"""Differences, their intervals and p-values, derived by hand."""

import math

import numpy as np
import pytest
from evidence.differences import Accuracies, holm, over_seeds
from evidence.results import Result

from guardreasoner.errors import InputError
from tests.support.studies import result


def test_differences_are_the_means_over_seeds_of_differences_on_the_same_records() -> None:
    found = Accuracies(
        [
            *(result("a", 1, "1110", "..42"), result("b", 1, "1000", "..20")),  # all: 75 - 25, hard: 6/8 - 2/8
            *(result("a", 2, "11?0", ".4.."), result("b", 2, "1100", ".3..")),  # all: 50 - 50, hard: 4/4 - 3/4
            result("b", 3, "1111", "4444"),  # a has no seed 3
        ],
        resamples=100,
    )
    all_records, hard = found.difference("a", "b", "all"), found.difference("a", "b", "hard")
    assert all_records is not None
    assert (all_records.seeds, all_records.by_seed, all_records.points.value) == ((1, 2), (50.0, 0.0), 25.0)
    assert hard is not None
    assert (hard.by_seed, hard.points.value) == ((50.0, 25.0), 37.5)
    assert found.difference("a", "c", "all") is None


def test_the_interval_over_records_of_one_seed_is_that_of_the_binomial() -> None:
    # One of two records differs by 100 points. It is drawn 0, 1 or 2 times with probability 1/4, 1/2, 1/4: the
    # difference is 0, 50 or 100 points, and its percentiles are 0 and 100.
    found = Accuracies([result("a", 1, "11", "42"), result("b", 1, "10", "42")]).difference("a", "b", "all")
    assert found is not None
    assert (found.points.value, found.points.low, found.points.high) == (50.0, 0.0, 100.0)
    assert math.isnan(found.p)  # one seed


def test_other_stored_results_do_not_change_an_interval() -> None:
    results = [result("a", 1, "1011" * 5, "4" * 20), result("b", 1, "1010" * 5, "4" * 20)]
    other = result("c", 1, "01" * 10, "1234" * 5)
    alone, beside = (Accuracies(found).difference("a", "b", "all") for found in (results, [other, *results]))
    assert alone is not None
    assert beside is not None
    assert alone.points == beside.points


def test_records_move_together_in_all_seeds() -> None:
    # Both seeds differ on the first record and are equal on the second: if each seed drew records of its own, the mean
    # would also take the values 25 and 75.
    results = [result(arm, seed, right, "42") for seed in (1, 2) for arm, right in (("a", "11"), ("b", "01"))]
    found = Accuracies(results)
    values = np.unique(found.by_figure["all"]["a", 1] - found.by_figure["all"]["b", 1])
    assert values.tolist() == [0.0, 50.0, 100.0]
    assert np.array_equal(*(found.by_figure["all"]["b", seed] for seed in (1, 2)))


def test_records_of_one_conversation_are_drawn_together() -> None:
    results = [result(arm, 1, right, "4444", groups=[0, 0, 1, 1]) for arm, right in (("a", "1111"), ("b", "0011"))]
    found = Accuracies(results)
    values = np.unique(found.by_figure["all"]["a", 1] - found.by_figure["all"]["b", 1])
    assert values.tolist() == [0.0, 50.0, 100.0]  # never 25 or 75


def test_intervals_and_p_values_are_those_of_students_distribution() -> None:
    # Seeds with 1, 2 and 3 points: s / √S = 1 / √3, and t = 2 · √3 with two degrees of freedom, where the 97.5th
    # percentile is 4.3027 and p = 1 - t / √(2 + t²).
    points, p = over_seeds([1, 2, 3], 0)
    assert (points.value, points.low, points.high) == pytest.approx((2, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), 1e-4)
    assert p == pytest.approx(1 - math.sqrt(12 / 14))
    # As much variance again from the records, 1/3: t² = 6, with 2 · (2/3)² / (1/3)² = 8 degrees of freedom, where the
    # percentile is 2.3060 and 1 - p = s · (1 + c/2 + 3c²/8 + 5c³/16) with s² = 6/14 and c = 8/14.
    points, p = over_seeds([1, 2, 3], 1 / 3)
    assert points.interval == pytest.approx((2 - 2.3060 * (2 / 3) ** 0.5, 2 + 2.3060 * (2 / 3) ** 0.5), 1e-4)
    c = 8 / 14
    assert p == pytest.approx(1 - math.sqrt(6 / 14) * (1 + c / 2 + 3 * c**2 / 8 + 5 * c**3 / 16))
    # Without differences between seeds, it is the normal distribution.
    points, p = over_seeds([1.95996, 1.95996], 1)
    assert (points.low, p) == pytest.approx((0, 0.05), abs=1e-4)
    assert [over_seeds([value, value], 0)[1] for value in (0, 5)] == [1, 0]


@pytest.mark.parametrize("count", [3, 4, 5])
@pytest.mark.parametrize(("seeds", "records", "both"), [(1, 0, 0), (0, 8, 0), (0, 0, 8), (1, 4, 0), (1, 8, 8)])
def test_intervals_hold_the_true_difference(count: int, seeds: float, records: float, both: float) -> None:
    # 0 for some models and 64 records; chance of the model, of the record, and of the two together.
    draw, held = np.random.default_rng(0), 0
    for _ in range(1000):
        found = draw.normal(0, seeds, (count, 1)) + draw.normal(0, records, 64) + draw.normal(0, both, (count, 64))
        low, high = over_seeds(found.mean(axis=1).tolist(), float(found.mean(axis=0).var() / 64))[0].interval or (1, 0)
        held += low <= 0 <= high
    assert (900 if count == 3 else 925) <= held <= 1000


def test_few_seeds_do_not_give_tiny_p_values() -> None:
    # Five seeds with 2 to 6 points: t = 4 / √0.5 = 5.657 with 4 degrees of freedom, whose p is 0.0048. No resample of
    # the seeds is below 0, so their bootstrap would call it smaller, whatever its size.
    right = ["1" * (50 + points) + "0" * (50 - points) for points in (2, 3, 4, 5, 6)]
    results = [result("a", seed, marks, "4" * 100) for seed, marks in enumerate(right)]
    results += [result("b", seed, "1" * 50 + "0" * 50, "4" * 100) for seed in range(5)]
    found = Accuracies(results).difference("a", "b", "all")
    assert found is not None
    assert found.points.value == 4
    assert over_seeds(found.by_seed, 0)[1] == pytest.approx(0.0048, abs=1e-4)
    assert 0.0048 < found.p < 0.2


def test_p_values_are_corrected_after_holm() -> None:
    # 0.01 · 3, 0.03 · 2, then 0.04 · 1, which is raised to the value before it.
    assert holm({"x": 0.01, "y": 0.04, "z": 0.03}) == pytest.approx({"x": 0.03, "z": 0.06, "y": 0.06})
    assert holm({"x": 0.6, "y": 0.9}) == {"x": 1.0, "y": 1.0}
    one_seed = holm({"x": 0.02, "y": float("nan")})
    assert one_seed["x"] == 0.02
    assert math.isnan(one_seed["y"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (result("b", 1, "1000", ".24."), r"toy: a-1\.json and b-1\.json: the hard records differ"),
        (result("b", 1, "1000", "..42", records="others"), r"toy: a-1\.json and b-1\.json: different records"),
    ],
)
def test_results_on_other_records_are_not_compared(other: Result, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Accuracies([result("a", 1, "1110", "..42"), other])


def test_the_share_of_unparsed_answers_of_an_arm() -> None:
    results = [result("a", 1, "1??0", "4444"), result("a", 2, "1?00", "4444")]
    found = Accuracies(results, resamples=100).difference("a", "", "unparsed")
    assert found is not None
    assert (found.seeds, found.by_seed, found.points.value) == ((1, 2), (50.0, 25.0), 37.5)
