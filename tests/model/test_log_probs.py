import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from guardreasoner.model.log_probs import sequence_logps, sequence_nll, token_logps

LN2, LN3 = math.log(2), math.log(3)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_token_logps_of_three_words_by_hand() -> None:
    # The head is the identity, so the hidden state is the logits. (0, 0, 0): each word has probability 1/3.
    # (ln 2, 0, 0): 2 : 1 : 1, so 1/2, 1/4, 1/4. (0, ln 3, ln 4): 1 : 3 : 4, so 1/8, 3/8, 1/2.
    hidden = torch.tensor([[0, 0, 0], [LN2, 0, 0], [LN2, 0, 0], [0, LN3, 2 * LN2]], dtype=torch.float64)
    found = token_logps(hidden, torch.eye(3, dtype=torch.float64), torch.tensor([1, 0, 2, 1]))
    torch.testing.assert_close(found, doubles(-LN3, -LN2, -2 * LN2, math.log(3 / 8)))


def test_the_head_makes_logits_of_hidden_states() -> None:
    # One hidden number h = ln 3, two words with weights 1 and 0: logits (ln 3, 0), probabilities 3/4 and 1/4.
    hidden, head = torch.tensor([[LN3], [LN3]], dtype=torch.float64), torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    found = token_logps(hidden, head, torch.tensor([0, 1]))
    torch.testing.assert_close(found, doubles(math.log(3 / 4), math.log(1 / 4)))


@pytest.mark.parametrize("chunk", [1, 3, 7, 8])
def test_chunks_change_neither_value_nor_gradient(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 4, dtype=torch.float64, generator=generator)
    head = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    targets = torch.tensor([0, 4, 2, 2, 1, 3, 0])
    results = []
    for size in (chunk, 2048):
        inputs = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        values = token_logps(*inputs, targets, chunk=size)
        values.dot(torch.arange(1, 8, dtype=torch.float64)).backward()
        results.append((values.detach(), *(one.grad for one in inputs)))
    for split, whole in zip(*results, strict=True):
        torch.testing.assert_close(split, whole, rtol=1e-13, atol=1e-13)


def test_half_precision_is_summed_in_float32() -> None:
    hidden, head = torch.ones(1, 2, dtype=torch.bfloat16), torch.zeros(3, 2, dtype=torch.bfloat16)
    found = token_logps(hidden, head, torch.tensor([0]))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(-LN3, abs=1e-6)  # bfloat16 keeps no more than two or three digits


def test_sums_and_means_by_sequence() -> None:
    logps, sequence = doubles(-1, -2, -3, -4), torch.tensor([2, 0, 2, 2])
    torch.testing.assert_close(sequence_logps(logps, sequence, 3), doubles(-2, 0, -8))
    torch.testing.assert_close(sequence_nll(logps, torch.tensor([1, 0, 1, 1]), 2), doubles(2, 8 / 3))


@pytest.mark.parametrize("chunk", [2, 10])
def test_gradients_of_token_logps(chunk: int) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    head = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.tensor([3, 0, 1, 1, 2])
    assert gradcheck(lambda h, w: token_logps(h, w, targets, chunk), (hidden, head))


@pytest.mark.parametrize("chunk", [2, 10])
@pytest.mark.parametrize("trained", ["hidden", "head"])
def test_gradients_where_only_one_factor_is_trained(trained: str, chunk: int) -> None:
    generator = torch.Generator().manual_seed(2)
    factors = {"hidden": torch.randn(5, 3, generator=generator), "head": torch.randn(4, 3, generator=generator)}
    factors = {name: factor.double() for name, factor in factors.items()}
    targets = torch.tensor([3, 0, 1, 1, 2])

    def logps(factor: Tensor) -> Tensor:
        return token_logps(**(factors | {trained: factor}), targets=targets, chunk=chunk)

    assert gradcheck(logps, (factors[trained].clone().requires_grad_(),))


def test_half_precision_gradients_are_close_to_those_of_autograd() -> None:
    generator = torch.Generator().manual_seed(3)
    whole = torch.randn(6, 8, generator=generator), torch.randn(9, 8, generator=generator)
    targets = torch.tensor([8, 0, 1, 5, 2, 2])
    found = [one.bfloat16().requires_grad_() for one in whole]
    plain = [one.bfloat16().float().requires_grad_() for one in whole]
    token_logps(found[0], found[1], targets).sum().backward()
    (plain[0] @ plain[1].T).log_softmax(-1).gather(1, targets[:, None]).sum().backward()
    for half, exact in zip(found, plain, strict=True):
        assert half.grad is not None
        assert half.grad.dtype == torch.bfloat16
        torch.testing.assert_close(half.grad.float(), exact.grad, rtol=0.05, atol=0.05)


def test_no_token_has_no_logps() -> None:
    hidden = torch.zeros(0, 3, requires_grad=True)
    assert token_logps(hidden, torch.zeros(4, 3), torch.zeros(0, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize("function", [sequence_logps, sequence_nll])
def test_gradients_of_sums(function: object) -> None:
    logps = doubles(-1, -0.5, -2, -3).requires_grad_()
    assert gradcheck(lambda x: function(x, torch.tensor([0, 1, 0, 1]), 2), (logps,))  # type: ignore[operator]
