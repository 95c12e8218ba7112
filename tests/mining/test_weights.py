import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.mining.weights import adaptive_weight


def test_weights_of_four_outputs() -> None:
    # k = 4 with 1, 2 or 3 wrong: excess errors -2, 0, 2 become -0.2, 0, 0.2 at γ = 0.2.
    weights = adaptive_weight([0, -2, 2, -2], 0.2)
    assert weights == pytest.approx([1.0, 0.8, 1.2, 0.8])


def test_scaling_uses_the_range_of_the_set() -> None:
    # Range -1 to 3: 0 is a quarter of the way, so α = 1 + 0.5 · (2/4 - 1).
    assert adaptive_weight([-1, 0, 3], 0.5) == pytest.approx([0.5, 0.75, 1.5])


@pytest.mark.parametrize("excess", [[2], [-2, -2, -2], []])
def test_equally_hard_records_have_weight_one(excess: list[int]) -> None:
    assert adaptive_weight(excess, 0.5).tolist() == [1.0] * len(excess)


@pytest.mark.parametrize("gamma", [-0.1, 1.0, 2.0, math.nan, math.inf])
def test_gamma_out_of_range_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma"):
        adaptive_weight([0, 1], gamma)


@given(st.lists(st.integers(-64, 64), min_size=1, max_size=30), st.floats(0, 0.999))
def test_weights_are_in_range_and_monotonic(excess: list[int], gamma: float) -> None:
    weights = adaptive_weight(excess, gamma).tolist()
    assert all(1 - gamma - 1e-12 <= weight <= 1 + gamma + 1e-12 for weight in weights)
    assert all(weight > 0 for weight in weights)
    in_order = [weight for _, weight in sorted(zip(excess, weights, strict=True))]
    assert in_order == sorted(weights)
    assert len(set(weights)) <= len(set(excess))
    if gamma > 0.01 and len(set(excess)) > 1:
        assert max(weights) - min(weights) == pytest.approx(2 * gamma)
