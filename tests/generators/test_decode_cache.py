"""The buffers of keys and values during decoding."""

import torch
from torch import Tensor

from guardreasoner.generators.decode_cache import DecodeCache
from guardreasoner.model.batch import Segment


def states(tokens: int, value: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.full((1, 2, tokens, 4), value), torch.full((1, 2, tokens, 4), value)


def test_infinities_of_a_removed_row_do_not_affect_the_row_that_replaces_it() -> None:
    cache = DecodeCache(None, torch.device("cpu"))
    cache.enter({0: states(9, torch.inf)}, [(Segment(0, 9), 2)])
    cache.enter({0: states(3)}, [(Segment(0, 3), 1)])
    cache.keep([2])
    cache.enter({0: states(5)}, [(Segment(0, 2), 1), (Segment(2, 5), 1)])
    assert cache.lengths == [3, 2, 3]
    assert cache.advance().tolist() == [[3], [2], [3]]
    ones = torch.ones(3, 2, 1, 4)
    assert torch.equal(cache.attend(0, torch.ones(3, 4, 1, 4), ones, ones, None, None), torch.ones(3, 4, 1, 4))


def test_growing_the_buffers_preserves_their_content() -> None:
    cache = DecodeCache(None, torch.device("cpu"))
    cache.enter({0: states(120, 3.0)}, [(Segment(0, 120), 2)])
    for step in range(20):
        assert cache.advance().tolist() == [[120 + step]] * 2
        threes = torch.full((2, 2, 1, 4), 3.0)
        output = cache.attend(0, torch.ones(2, 4, 1, 4), threes, threes, None, None)
        torch.testing.assert_close(output, torch.full((2, 4, 1, 4), 3.0))
