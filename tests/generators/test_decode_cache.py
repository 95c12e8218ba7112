import torch
from torch import Tensor

from guardreasoner.generators.decode_cache import DecodeCache
from guardreasoner.model.batch import Segment


def states(tokens: int, value: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.full((1, 2, tokens, 4), value), torch.full((1, 2, tokens, 4), value)


def test_a_row_of_infinities_leaves_no_trace() -> None:
    cache = DecodeCache(3, None, torch.device("cpu"))
    cache.enter({0: states(9, torch.inf)}, [(Segment(0, 9), 2)])
    cache.enter({0: states(3)}, [(Segment(0, 3), 1)])
    cache.keep([2])
    cache.enter({0: states(5)}, [(Segment(0, 2), 1), (Segment(2, 5), 1)])
    assert cache.lengths == [3, 2, 3]
    assert cache.advance().tolist() == [[3], [2], [3]]
    one = torch.ones(3, 2, 1, 4)
    assert torch.equal(cache.attend(0, torch.ones(3, 4, 1, 4), one, one, None, None), torch.ones(3, 4, 1, 4))


def test_room_grows_and_keeps_what_is_there() -> None:
    cache = DecodeCache(2, None, torch.device("cpu"))
    cache.enter({0: states(120, 3.0)}, [(Segment(0, 120), 2)])
    for step in range(20):
        assert cache.advance().tolist() == [[120 + step]] * 2
        three = torch.full((2, 2, 1, 4), 3.0)
        found = cache.attend(0, torch.ones(2, 4, 1, 4), three, three, None, None)
        torch.testing.assert_close(found, torch.full((2, 4, 1, 4), 3.0))
