"""The distribution of sampled tokens."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.generators.token_sampler import TokenSampler

EVEN = [(n + 0.5) / 1000 for n in range(1000)]
"""Evenly spaced random numbers: they select each token in proportion to its probability, up to rounding."""


def frequencies(logits: torch.Tensor, sampler: TokenSampler) -> list[float]:
    counts = Counter(sampler(logits.expand(len(EVEN), -1), EVEN))
    return [counts[token] / len(EVEN) for token in range(len(logits))]


@given(
    logits=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=50),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
)
def test_frequencies_equal_the_softmax(logits: list[float], temperature: float) -> None:
    scores = torch.tensor(logits)
    expected = (scores.double() / temperature).softmax(-1).tolist()
    assert frequencies(scores, TokenSampler(temperature)) == pytest.approx(expected, abs=0.0021)


@given(logits=st.lists(st.integers(-400, 400), min_size=1, max_size=50, unique=True), top_p=st.floats(0.05, 0.999))
def test_the_nucleus_is_the_smallest_set_of_most_probable_tokens(logits: list[int], top_p: float) -> None:
    scores = torch.tensor(logits) / 100
    probabilities = scores.double().softmax(-1)
    members, total = [], 0.0
    for token in probabilities.argsort(descending=True).tolist():
        if total >= top_p - 1e-6:
            break
        members.append(token)
        total += probabilities[token].item()
    expected = [probabilities[token].item() / total if token in members else 0.0 for token in range(len(logits))]
    # if the nucleus ends just at top_p, rounding decides about the next token
    if abs(total - top_p) > 1e-5 and abs(total - probabilities[members[-1]].item() - top_p) > 1e-5:
        assert frequencies(scores, TokenSampler(1.0, top_p)) == pytest.approx(expected, abs=0.0021)


def test_temperature_zero_is_greedy() -> None:
    assert TokenSampler(0.0, 0.5)(torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), []) == [1, 0]
