import torch
from torch import Tensor

from guardreasoner.generators.running import Running
from guardreasoner.tokens import Segment


def states(tokens: int, value: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.full((1, 2, tokens, 4), value), torch.full((1, 2, tokens, 4), value)


def test_a_row_of_infinities_leaves_no_trace() -> None:
    running = Running(3, None, torch.device("cpu"))
    running.enter({0: states(9, torch.inf)}, [(Segment(0, 9), 2)])
    running.enter({0: states(3)}, [(Segment(0, 3), 1)])
    running.keep([2])
    running.enter({0: states(5)}, [(Segment(0, 2), 1), (Segment(2, 5), 1)])
    assert running.lengths == [3, 2, 3]
    assert running.advance().tolist() == [[3], [2], [3]]
    one = torch.ones(3, 2, 1, 4)
    assert torch.equal(running.attend(0, torch.ones(3, 4, 1, 4), one, one, None, None), torch.ones(3, 4, 1, 4))


def test_room_grows_and_keeps_what_is_there() -> None:
    running = Running(2, None, torch.device("cpu"))
    running.enter({0: states(120, 3.0)}, [(Segment(0, 120), 2)])
    for step in range(20):
        assert running.advance().tolist() == [[120 + step]] * 2
        three = torch.full((2, 2, 1, 4), 3.0)
        found = running.attend(0, torch.ones(2, 4, 1, 4), three, three, None, None)
        torch.testing.assert_close(found, torch.full((2, 4, 1, 4), 3.0))
