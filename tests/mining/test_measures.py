"""The measures against values derived by hand, and the expectation against all draws that there are."""

from fractions import Fraction
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.mining.counts import NO_LABEL, RIGHT, WRONG
from guardreasoner.mining.measures import (
    chance_none_drawn,
    cohens_kappa,
    expected_hard,
    vote_histogram,
    weight_histogram,
)

Votes = list[tuple[int, ...]]
"""One model's outputs for one record: a row an output, a vote for each question."""


def expected(records: list[list[Votes]], ks: list[int], pool: bool = True) -> list[float]:
    """Return the expectation for records given as one list of votes for each model."""
    units = [(place, unit) for place, record in enumerate(records) for unit in record]
    votes = np.array([row for _, unit in units for row in unit], dtype=np.int8)
    of = np.repeat(np.arange(len(units)), [len(unit) for _, unit in units])
    return expected_hard(votes, of, np.array([place for place, _ in units]), ks, pool)


def alone(right: int, wrong: int, silent: int = 0) -> list[Votes]:
    """Return a record that one model answered, on one question."""
    return [[(RIGHT,)] * right + [(WRONG,)] * wrong + [(NO_LABEL,)] * silent]


def test_one_model_by_hand() -> None:
    # of 4 outputs, 1 right: two are alike in C(3,2)/C(4,2) = 3/6 of the draws, three in C(3,3)/C(4,3) = 1/4
    assert expected([alone(1, 3)], [1, 2, 3, 4]) == pytest.approx([0, 1 / 2, 3 / 4, 1])
    # 2 right: two are alike in 1/6 + 1/6, three never
    assert expected([alone(2, 2)], [2, 3, 4]) == pytest.approx([2 / 3, 1, 1])
    assert expected([alone(4, 0), alone(0, 4), alone(1, 3), alone(2, 2)], [2]) == pytest.approx([1 / 2 + 2 / 3])
    # one right, one wrong, one without a vote: mixed only if the silent one is not drawn, 1/3
    assert expected([alone(1, 1, 1)], [2, 3]) == pytest.approx([1 / 3, 1])


def test_two_models_by_hand() -> None:
    record: list[Votes] = [[(RIGHT,), (WRONG,)], [(RIGHT,), (RIGHT,)]]
    # one output of each: mixed together if the first model's is the wrong one
    assert expected([record], [1, 2]) == pytest.approx([1 / 2, 1])
    assert expected([record], [1, 2], pool=False) == pytest.approx([0, 1])
    # alone, two models with 1 right of 4: each mixed with 1/2 at two outputs, either of them with 3/4
    assert expected([[*alone(1, 3), *alone(1, 3)]], [2], pool=False) == pytest.approx([3 / 4])


def test_two_questions_by_hand() -> None:
    # outputs (right, right), (right, wrong), (wrong, right): any two differ on some question
    assert expected([[[(RIGHT, RIGHT), (RIGHT, WRONG), (WRONG, RIGHT)]]], [2]) == pytest.approx([1])
    assert expected([[[(RIGHT, RIGHT), (RIGHT, WRONG), (RIGHT, RIGHT)]]], [2]) == pytest.approx([2 / 3])
    assert expected_hard(np.zeros((2, 0)), np.array([0, 0]), np.array([0]), [2], True) == [0.0]
    assert expected_hard(np.zeros((0, 1)), np.zeros(0, int), np.zeros(0, int), [2, 3], True) == [0.0, 0.0]


vote = st.sampled_from([RIGHT, WRONG, NO_LABEL])


@st.composite
def answered(draw: st.DrawFn) -> list[list[Votes]]:
    questions = draw(st.integers(1, 3))
    unit = st.lists(st.tuples(*[vote] * questions), min_size=1, max_size=4)
    return draw(st.lists(st.lists(unit, min_size=1, max_size=2), min_size=1, max_size=3))


def is_hard(drawn: list[Votes], pool: bool) -> bool:
    groups = [[row for unit in drawn for row in unit]] if pool else drawn
    return any({RIGHT, WRONG} <= set(column) for group in groups for column in zip(*group, strict=True))


@given(answered(), st.integers(1, 5), st.booleans())
def test_the_expectation_is_the_mean_over_all_draws(records: list[list[Votes]], k: int, pool: bool) -> None:
    wanted = Fraction(0)
    for record in records:
        draws = [list(map(list, combinations(unit, min(k, len(unit))))) for unit in record]
        every = [is_hard(list(drawn), pool) for drawn in product(*draws)]
        wanted += Fraction(sum(every), len(every))
    assert expected(records, [k], pool) == pytest.approx([float(wanted)], abs=1e-9)


@given(st.integers(1, 12), st.integers(0, 12), st.integers(1, 14))
def test_the_chance_that_no_marked_one_is_drawn(n: int, marked: int, k: int) -> None:
    marked, drawn = min(marked, n), min(k, n)
    wanted = comb(n - marked, drawn) / comb(n, drawn)
    assert chance_none_drawn(np.array([marked]), np.array([n]), k).tolist() == pytest.approx([wanted])


def test_kappa_by_hand() -> None:
    one, other = np.array([True, True, False, False]), np.array([True, False, False, False])
    # they agree on 3 of 4; by chance on 1/2 · 1/4 + 1/2 · 3/4 = 1/2, so kappa is (3/4 − 1/2) / (1 − 1/2)
    assert cohens_kappa(one, other) == pytest.approx((0.75, 0.5))
    assert cohens_kappa(one, ~one) == pytest.approx((0.0, -1.0))
    assert cohens_kappa(one | True, one | True) == (1.0, None)
    # three words: the same on 3 of 4; by chance on 2/4 · 1/4 + 1/4 · 2/4 + 1/4 · 1/4 = 5/16; kappa (12 − 5) / (16 − 5)
    assert cohens_kappa(np.array(["a", "a", "b", "c"]), np.array(["a", "b", "b", "c"])) == pytest.approx((0.75, 7 / 11))


def test_histograms_by_hand() -> None:
    right, cast = np.array([0, 4, 2, 2, 1, 0]), np.array([4, 4, 4, 4, 2, 0])
    assert vote_histogram(right, cast) == {2: (0, 1, 0), 4: (1, 0, 2, 0, 1)}
    found = weight_histogram([0.5, 1.0, 1.5, 1.5], 0.5)
    assert [(weight, count) for weight, count in found if count] == [(0.5, 1), (1.0, 1), (1.5, 2)]
    assert len(found) == 21
    assert weight_histogram([1.0, 1.0], 0) == ((1.0, 2),)
    assert sum(count for _, count in weight_histogram([], 0.2)) == 0
