import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from guardreasoner.training.losses import dpo, hinge, hsdpo, ipo, margin

LN2, LN3 = math.log(2), math.log(3)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_margin_by_hand() -> None:
    # (-3 - -5) - (-7 - -4) = 2 + 3
    assert margin(doubles(-3), doubles(-7), doubles(-5), doubles(-4)).item() == 5


def test_preference_losses_by_hand() -> None:
    zero, some = doubles(0), doubles(2 * LN3)
    assert dpo(zero, 0.01).item() == pytest.approx(LN2)
    # β · margin = ln 3, σ(ln 3) = 3/4. For -ln 3 it is 1/4.
    assert dpo(some, 0.5).item() == pytest.approx(math.log(4 / 3))
    assert dpo(-some, 0.5).item() == pytest.approx(math.log(4))
    # 1 / 2β = 5 at β = 0.1
    torch.testing.assert_close(ipo(doubles(0, 5, 7), 0.1), doubles(25, 0, 4))
    # β · margin = 0, 1/2, 1, 2, -1
    torch.testing.assert_close(hinge(doubles(0, 5, 10, 20, -10), 0.1), doubles(1, 0.5, 0, 0, 2))


def test_dpo_stays_finite_far_out() -> None:
    assert dpo(doubles(-1e6, 1e6), 1.0).tolist() == [1e6, 0]


def test_hsdpo_weighs_the_preference_alone() -> None:
    # 0.5 · 3 + 2 · 7; 1.5 · 1 + 2 · 0; without c the NLL has no part.
    preference, weight, nll = doubles(3, 1), doubles(0.5, 1.5), doubles(7, 0)
    torch.testing.assert_close(hsdpo(preference, weight, nll, 2.0), doubles(15.5, 1.5))
    torch.testing.assert_close(hsdpo(preference, weight, nll, 0.0), doubles(1.5, 1.5))


@pytest.mark.parametrize("function", [dpo, ipo, hinge])
def test_gradients_of_preference_losses(function: object) -> None:
    gaps = doubles(-4, -0.3, 0.7, 2.4, 9).requires_grad_()  # none at the kink of the hinge, 1 / 0.3
    assert gradcheck(lambda x: function(x, 0.3), (gaps,))  # type: ignore[operator]


def test_gradients_of_margin_and_hsdpo() -> None:
    parts = [torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    assert gradcheck(margin, [part.requires_grad_() for part in parts])
    preference, weight, nll, _ = parts
    assert gradcheck(lambda p, w, n: hsdpo(p, w, n, 1.7), (preference, weight, nll))
