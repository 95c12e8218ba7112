"""Advantages, clipping, divergence and normalizations of GRPO by numbers derived by hand, in float64 to 1e-12."""

import math

import pytest
import torch
from torch import Tensor

from guardreasoner.training.grpo_loss import (
    StepSize,
    advantages,
    clipped_loss,
    constant,
    is_clipped,
    kl_estimate,
    sequence_mean,
    token_mean,
    unbiased_kl_penalty,
    without_signal,
)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_advantages_are_rewards_in_standard_deviations_of_their_group() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    # Means 1/2 and 1/4; variances with k − 1 = 3: (4 · 1/4) / 3 = 1/3 and (3 · 1/16 + 9/16) / 3 = 1/4.
    first, second = 0.5 / (math.sqrt(1 / 3) + 1e-4), 0.25 / (0.5 + 1e-4)
    expected = [[first, -first, -first, first], [-second, -second, -second, 3 * second]]
    torch.testing.assert_close(advantages(rewards), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    unscaled = [[0.5, -0.5, -0.5, 0.5], [-0.25, -0.25, -0.25, 0.75]]
    assert advantages(rewards, scale=False).tolist() == unscaled


def test_a_group_of_equal_rewards_has_no_signal() -> None:
    # The mean of eight thirds is not exactly a third, and a deviation of 1e-17 must not count.
    rewards = torch.tensor([[1 / 3] * 7, [0.0] * 7, [1.0] * 7, [0.0] * 6 + [1.0]], dtype=torch.float64)
    assert without_signal(rewards).tolist() == [True, True, True, False]
    for scale in (True, False):
        assert advantages(rewards, scale)[:3].abs().max() == 0
        assert advantages(rewards, scale)[3].abs().min() > 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.0, -2.0, 2.0, False),
        (1.5, 2.0, -2.6, True),  # min(1.5 · 2, 1.3 · 2)
        (1.5, -2.0, 3.0, False),  # min(−3, −2.6)
        (0.5, 2.0, -1.0, False),  # min(0.5 · 2, 0.8 · 2)
        (0.5, -2.0, 1.6, True),  # min(−1, −1.6)
        (1.5, 0.0, 0.0, False),
    ],
)
def test_the_ratio_is_clipped_where_the_loss_would_fall(
    ratio: float, advantage: float, loss: float, clipped: bool
) -> None:
    logps = tensor(math.log(0.4 * ratio)).requires_grad_()
    others = (tensor(math.log(0.4)), tensor(advantage), 0.2, 0.3)
    found = clipped_loss(logps, *others)
    assert found.item() == pytest.approx(loss, rel=1e-12)
    assert is_clipped(logps, *others).item() == clipped
    found.sum().backward()
    # ∂ρ/∂log π = ρ
    assert logps.grad is not None
    assert logps.grad.item() == pytest.approx(0.0 if clipped else -ratio * advantage, rel=1e-12)


def test_the_estimate_of_the_divergence_is_right_on_average() -> None:
    policy, reference = tensor(0.5, 0.3, 0.2), tensor(0.25, 0.25, 0.5)
    found = kl_estimate(policy.log(), reference.log())
    # π_ref/π is 1/2, 5/6 and 5/2.
    by_hand = [0.5 - 1 + math.log(2), 5 / 6 - 1 - math.log(5 / 6), 2.5 - 1 - math.log(2.5)]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-12)
    divergence = (policy * (policy / reference).log()).sum()
    assert (policy * found).sum().item() == pytest.approx(divergence.item(), rel=1e-12)
    assert kl_estimate(policy.log(), policy.log()).tolist() == [0, 0, 0]


def test_the_gradient_of_the_divergence_is_unbiased_with_the_ratio() -> None:
    policy, reference = tensor(0.5, 0.3, 0.2), tensor(0.25, 0.25, 0.5)
    for unbiased in (True, False):
        logps = policy.log().requires_grad_()
        kl = kl_estimate(logps, reference.log())
        (unbiased_kl_penalty(kl, logps, policy.log()) if unbiased else kl).sum().backward()
        # ρ = 1: r − log r − 1 + 1 − r = log(π/π_ref), and 1 − r alone, with r of 1/2, 5/6 and 5/2.
        expected = [math.log(2), math.log(6 / 5), math.log(2 / 5)] if unbiased else [1 / 2, 1 / 6, -3 / 2]
        assert logps.grad is not None
        assert logps.grad.tolist() == pytest.approx(expected, rel=1e-12)
    assert unbiased_kl_penalty(tensor(0.5), tensor(math.log(0.3)), tensor(math.log(0.2))).item() == pytest.approx(0.75)


def test_normalizations() -> None:
    lengths, size = torch.tensor([2, 4]), StepSize(tokens=10, outputs=4, max_new_tokens=5)
    assert token_mean(lengths, size).tolist() == pytest.approx([1 / 10, 1 / 10])
    assert sequence_mean(lengths, size).tolist() == pytest.approx([1 / 8, 1 / 16])
    assert constant(lengths, size).tolist() == pytest.approx([1 / 20, 1 / 20])
