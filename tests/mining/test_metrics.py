"""Metrics against values derived by hand, and the expected number of hard records against an enumeration of draws."""

from fractions import Fraction
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.mining.counts import NO_LABEL, RIGHT, WRONG
from guardreasoner.mining.metrics import (
    cohens_kappa,
    expected_hard,
    probability_none_drawn,
    vote_histogram,
    weight_histogram,
)

Votes = list[tuple[int, ...]]
"""One model's outputs for one record: one row per output, one vote per question."""


def expected(records: list[list[Votes]], ks: list[int], pool: bool = True) -> list[float]:
    """Return ``expected_hard`` for records given as one list of votes per model."""
    units = [(index, unit) for index, record in enumerate(records) for unit in record]
    votes = np.array([row for _, unit in units for row in unit], dtype=np.int8)
    unit_indices = np.repeat(np.arange(len(units)), [len(unit) for _, unit in units])
    return expected_hard(votes, unit_indices, np.array([index for index, _ in units]), ks, pool)


def one_model(right: int, wrong: int, no_vote: int = 0) -> list[Votes]:
    """Return a record with the outputs of one model, graded on one question."""
    return [[(RIGHT,)] * right + [(WRONG,)] * wrong + [(NO_LABEL,)] * no_vote]


def test_one_model_by_hand() -> None:
    # 1 of 4 right: two drawn outputs agree with probability C(3,2)/C(4,2) = 3/6, three with C(3,3)/C(4,3) = 1/4
    assert expected([one_model(1, 3)], [1, 2, 3, 4]) == pytest.approx([0, 1 / 2, 3 / 4, 1])
    # 2 of 4 right: two drawn outputs agree with probability 1/6 + 1/6, three never do
    assert expected([one_model(2, 2)], [2, 3, 4]) == pytest.approx([2 / 3, 1, 1])
    assert expected([one_model(4, 0), one_model(0, 4), one_model(1, 3), one_model(2, 2)], [2]) == pytest.approx(
        [1 / 2 + 2 / 3]
    )
    # one right, one wrong, one without a vote: mixed only if the last is not drawn, probability 1/3
    assert expected([one_model(1, 1, 1)], [2, 3]) == pytest.approx([1 / 3, 1])


def test_two_models_by_hand() -> None:
    record: list[Votes] = [[(RIGHT,), (WRONG,)], [(RIGHT,), (RIGHT,)]]
    # one output of each model: mixed when pooled if the first model's wrong output is drawn
    assert expected([record], [1, 2]) == pytest.approx([1 / 2, 1])
    assert expected([record], [1, 2], pool=False) == pytest.approx([0, 1])
    # mined separately, two models with 1 of 4 right: each is mixed with probability 1/2 at k = 2, at least one with 3/4
    assert expected([[*one_model(1, 3), *one_model(1, 3)]], [2], pool=False) == pytest.approx([3 / 4])


def test_two_questions_by_hand() -> None:
    # outputs (right, right), (right, wrong), (wrong, right): any two differ on some question
    assert expected([[[(RIGHT, RIGHT), (RIGHT, WRONG), (WRONG, RIGHT)]]], [2]) == pytest.approx([1])
    assert expected([[[(RIGHT, RIGHT), (RIGHT, WRONG), (RIGHT, RIGHT)]]], [2]) == pytest.approx([2 / 3])
    assert expected_hard(np.zeros((2, 0)), np.array([0, 0]), np.array([0]), [2], True) == [0.0]
    assert expected_hard(np.zeros((0, 1)), np.zeros(0, int), np.zeros(0, int), [2, 3], True) == [0.0, 0.0]


vote = st.sampled_from([RIGHT, WRONG, NO_LABEL])


@st.composite
def graded_records(draw: st.DrawFn) -> list[list[Votes]]:
    questions = draw(st.integers(1, 3))
    unit = st.lists(st.tuples(*[vote] * questions), min_size=1, max_size=4)
    return draw(st.lists(st.lists(unit, min_size=1, max_size=2), min_size=1, max_size=3))


def is_hard(drawn: list[Votes], pool: bool) -> bool:
    groups = [[row for unit in drawn for row in unit]] if pool else drawn
    return any({RIGHT, WRONG} <= set(column) for group in groups for column in zip(*group, strict=True))


@given(graded_records(), st.integers(1, 5), st.booleans())
def test_the_expectation_equals_the_mean_over_all_draws(records: list[list[Votes]], k: int, pool: bool) -> None:
    mean = Fraction(0)
    for record in records:
        draws = [list(map(list, combinations(unit, min(k, len(unit))))) for unit in record]
        hard = [is_hard(list(drawn), pool) for drawn in product(*draws)]
        mean += Fraction(sum(hard), len(hard))
    assert expected(records, [k], pool) == pytest.approx([float(mean)], abs=1e-9)


@given(st.integers(1, 12), st.integers(0, 12), st.integers(1, 14))
def test_probability_none_drawn_equals_the_binomial_ratio(n: int, marked: int, k: int) -> None:
    marked, drawn = min(marked, n), min(k, n)
    wanted = comb(n - marked, drawn) / comb(n, drawn)
    assert probability_none_drawn(np.array([marked]), np.array([n]), k).tolist() == pytest.approx([wanted])


def test_kappa_by_hand() -> None:
    first, second = np.array([True, True, False, False]), np.array([True, False, False, False])
    # observed agreement 3/4; expected 1/2 · 1/4 + 1/2 · 3/4 = 1/2, so kappa = (3/4 − 1/2) / (1 − 1/2)
    assert cohens_kappa(first, second) == pytest.approx((0.75, 0.5))
    assert cohens_kappa(first, ~first) == pytest.approx((0.0, -1.0))
    assert cohens_kappa(first | True, first | True) == (1.0, None)
    # three categories: observed 3/4; expected 2/4 · 1/4 + 1/4 · 2/4 + 1/4 · 1/4 = 5/16; kappa (12 − 5) / (16 − 5)
    assert cohens_kappa(np.array(["a", "a", "b", "c"]), np.array(["a", "b", "b", "c"])) == pytest.approx((0.75, 7 / 11))


def test_histograms_by_hand() -> None:
    right, total = np.array([0, 4, 2, 2, 1, 0]), np.array([4, 4, 4, 4, 2, 0])
    assert vote_histogram(right, total) == {2: (0, 1, 0), 4: (1, 0, 2, 0, 1)}
    histogram = weight_histogram([0.5, 1.0, 1.5, 1.5], 0.5)
    assert [(weight, count) for weight, count in histogram if count] == [(0.5, 1), (1.0, 1), (1.5, 2)]
    assert len(histogram) == 21
    assert weight_histogram([1.0, 1.0], 0) == ((1.0, 2),)
    assert sum(count for _, count in weight_histogram([], 0.2)) == 0
