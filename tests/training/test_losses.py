import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from guardreasoner.errors import InputError
from guardreasoner.model.log_probs import CompletionLogps
from guardreasoner.training.losses import dpo, hinge, hsdpo, ipo, margin, needs_reference, orpo, reference_free, simpo

LN2, LN3 = math.log(2), math.log(3)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def with_margin(values: Tensor) -> tuple[CompletionLogps, CompletionLogps]:
    """Return chosen and rejected completions with these margins."""
    zero = torch.zeros_like(values)
    return CompletionLogps(values, zero + 1, zero), CompletionLogps(zero, zero + 1, zero)


def test_margin_by_hand() -> None:
    chosen = CompletionLogps(doubles(-3), doubles(1), doubles(-5))
    rejected = CompletionLogps(doubles(-7), doubles(1), doubles(-4))
    # (-3 - -5) - (-7 - -4) = 2 + 3
    assert margin(chosen, rejected).item() == 5


def test_reference_objectives_by_hand() -> None:
    assert dpo(*with_margin(doubles(0)), 0.01).item() == pytest.approx(LN2)
    # β · margin = ln 3, σ(ln 3) = 3/4. For -ln 3 it is 1/4.
    assert dpo(*with_margin(doubles(2 * LN3)), 0.5).item() == pytest.approx(math.log(4 / 3))
    assert dpo(*with_margin(doubles(-2 * LN3)), 0.5).item() == pytest.approx(math.log(4))
    # 1 / 2β = 5 at β = 0.1
    torch.testing.assert_close(ipo(*with_margin(doubles(0, 5, 7)), 0.1), doubles(25, 0, 4))
    # β · margin = 0, 1/2, 1, 2, -1
    torch.testing.assert_close(hinge(*with_margin(doubles(0, 5, 10, 20, -10)), 0.1), doubles(1, 0.5, 0, 0, 2))


def test_dpo_stays_finite_for_large_margins() -> None:
    assert dpo(*with_margin(doubles(-1e6, 1e6)), 1.0).tolist() == [1e6, 0]


def test_simpo_by_hand() -> None:
    # Mean log-probabilities -6/3 = -2 and -8/2 = -4; β = 2, γ = 0.5 · 2: σ(2 · 2 - 1) = σ(3).
    chosen, rejected = CompletionLogps(doubles(-6), doubles(3)), CompletionLogps(doubles(-8), doubles(2))
    assert simpo(chosen, rejected, 2.0).item() == pytest.approx(math.log(1 + math.exp(-3)))
    # Equal means: only the target margin is left, σ(-1).
    assert simpo(chosen, chosen, 2.0).item() == pytest.approx(math.log(1 + math.e))
    assert simpo(chosen, chosen, 2.0, target_ratio=0.0).item() == pytest.approx(LN2)


def test_orpo_by_hand() -> None:
    # Geometric means of the token probabilities: 3/4 (odds 3) and 1/2 (odds 1). σ(ln 3) = 3/4; β = 0.1.
    chosen = CompletionLogps(2 * torch.log(doubles(0.75)), doubles(2))
    rejected = CompletionLogps(3 * torch.log(doubles(0.5)), doubles(3))
    assert orpo(chosen, rejected, 0.1).item() == pytest.approx(0.1 * math.log(4 / 3))
    assert orpo(rejected, chosen, 0.1).item() == pytest.approx(0.1 * math.log(4))


def test_orpo_stays_finite_for_certain_completions() -> None:
    for value in (torch.tensor([-1e-12], dtype=torch.float64), torch.tensor([0.0])):
        policy = value.requires_grad_()
        certain = CompletionLogps(policy, torch.ones_like(policy))
        other = CompletionLogps(policy - 1, torch.ones_like(policy))
        for chosen, rejected in ((certain, other), (other, certain), (certain, certain)):
            loss = orpo(chosen, rejected, 1.0).sum()
            (gradient,) = torch.autograd.grad(loss, policy)
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()


def test_objectives_tell_whether_they_need_a_reference() -> None:
    assert [needs_reference(objective) for objective in (dpo, ipo, hinge)] == [True] * 3
    assert [needs_reference(objective) for objective in (simpo, orpo)] == [False] * 2
    assert not needs_reference(reference_free(lambda chosen, rejected, beta: chosen.policy))
    chosen = CompletionLogps(doubles(-1), doubles(1))
    with pytest.raises(InputError, match="reference-free"):
        dpo(chosen, chosen, 1.0)


def test_alpha_weighs_only_the_preference_term() -> None:
    # 0.5 · 3 + 2 · 7; 1.5 · 1 + 2 · 0; without c the NLL has no part.
    preference, weight, nll = doubles(3, 1), doubles(0.5, 1.5), doubles(7, 0)
    torch.testing.assert_close(hsdpo(preference, weight, nll, 2.0), doubles(15.5, 1.5))
    torch.testing.assert_close(hsdpo(preference, weight, nll, 0.0), doubles(1.5, 1.5))


@pytest.mark.parametrize("objective", [dpo, ipo, hinge, simpo, orpo])
def test_gradients_of_objectives(objective: Callable[..., Tensor]) -> None:
    chosen = doubles(-4, -0.3, -7.3, -2.4, -9).requires_grad_()  # none at the kink of the hinge
    rejected = doubles(-2, -1, -8, -9, -30).requires_grad_()
    lengths, reference = doubles(3, 1, 5, 2, 4), doubles(-3, -1, -6, -2, -9)

    def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
        pair = (CompletionLogps(logps, lengths, reference) for logps in (chosen, rejected))
        return objective(*pair, 0.3)

    assert gradcheck(loss, (chosen, rejected))


def test_gradients_of_hsdpo() -> None:
    parts = [torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    assert gradcheck(lambda p, w, n: hsdpo(p, w, n, 1.7), [part.requires_grad_() for part in parts])
