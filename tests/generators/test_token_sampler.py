from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.generators import Request
from guardreasoner.generators.local import _order
from guardreasoner.generators.token_sampler import TokenSampler, draws

EVEN = [(n + 0.5) / 1000 for n in range(1000)]
"""Draws that lie evenly: each token is chosen as often as its probability says, but for rounding."""


def shares(logits: torch.Tensor, sampler: TokenSampler) -> list[float]:
    found = Counter(sampler(logits.expand(len(EVEN), -1), EVEN))
    return [found[token] / len(EVEN) for token in range(len(logits))]


@given(
    logits=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=50),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
)
def test_shares_are_the_softmax(logits: list[float], temperature: float) -> None:
    scores = torch.tensor(logits)
    expected = (scores.double() / temperature).softmax(-1).tolist()
    assert shares(scores, TokenSampler(temperature)) == pytest.approx(expected, abs=0.0021)


@given(logits=st.lists(st.integers(-400, 400), min_size=1, max_size=50, unique=True), top_p=st.floats(0.05, 0.999))
def test_the_nucleus_is_the_fewest_likeliest_that_fill_it(logits: list[int], top_p: float) -> None:
    scores = torch.tensor(logits) / 100
    probabilities = scores.double().softmax(-1)
    kept, total = [], 0.0
    for token in probabilities.argsort(descending=True).tolist():
        if total >= top_p - 1e-6:
            break
        kept.append(token)
        total += probabilities[token].item()
    expected = [probabilities[token].item() / total if token in kept else 0.0 for token in range(len(logits))]
    # where the nucleus ends just at top_p, rounding decides about the next token
    if abs(total - top_p) > 1e-5 and abs(total - probabilities[kept[-1]].item() - top_p) > 1e-5:
        assert shares(scores, TokenSampler(1.0, top_p)) == pytest.approx(expected, abs=0.0021)


def test_temperature_zero_is_greedy() -> None:
    assert TokenSampler(0.0, 0.5)(torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), []) == [1, 0]


def test_a_longer_limit_changes_no_draw() -> None:
    request = Request("a", (1,), "", (3, 3, 4))
    assert draws(request, 1, 5).tolist() == draws(request, 1, 50)[:5].tolist()
    firsts = {draws(request, index, 1).item() for index in range(3)} | {draws(Request("b", (), "", (3,)), 0, 1).item()}
    assert len(firsts) == 4


@given(st.lists(st.booleans(), max_size=12))
def test_rows_that_go_on_are_moved_as_little_as_may_be(done: list[bool]) -> None:
    order = _order(done)
    assert sorted(order) == [row for row, one in enumerate(done) if not one]
    assert all(place == row for place, row in enumerate(order) if row < len(order))
