"""The keys and values of outputs during decoding."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guardreasoner.generators.decode_cache import DecodeCache, without_gaps
from guardreasoner.model.batch import Segment
from guardreasoner.model.packed_attention import KeyValues, SharedPrefix

HEADS, GROUPS, SIZE = 2, 3, 4


def states(tokens: int, value: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.full((1, 2, tokens, 4), value), torch.full((1, 2, tokens, 4), value)


def test_infinities_of_a_removed_row_do_not_affect_the_row_that_replaces_it() -> None:
    cache = DecodeCache(None, torch.device("cpu"))
    cache.enter({0: states(3)}, [(Segment(0, 3), 1)])
    cache.enter({0: states(9, torch.inf)}, [(Segment(0, 9), 2)])
    new = torch.tensor([1, torch.inf, torch.inf]).view(3, 1, 1, 1).expand(3, 2, 1, 4)
    for _ in range(4):
        cache.advance()
        cache.attend(0, torch.ones(3, 4, 1, 4), new, new, None, None)
    cache.keep([0])
    cache.enter({0: states(5)}, [(Segment(0, 2), 1), (Segment(2, 5), 1)])
    assert cache.lengths == [7, 2, 3]
    assert cache.advance().tolist() == [[7], [2], [3]]
    ones = torch.ones(3, 2, 1, 4)
    assert torch.equal(cache.attend(0, torch.ones(3, 4, 1, 4), ones, ones, None, None), torch.ones(3, 4, 1, 4))


def test_growing_the_buffers_preserves_their_content() -> None:
    cache = DecodeCache(None, torch.device("cpu"))
    cache.enter({0: states(120, 3.0)}, [(Segment(0, 120), 2)])
    for step in range(140):
        assert cache.advance().tolist() == [[120 + step]] * 2
        threes = torch.full((2, 2, 1, 4), 3.0)
        output = cache.attend(0, torch.ones(2, 4, 1, 4), threes, threes, None, None)
        torch.testing.assert_close(output, torch.full((2, 4, 1, 4), 3.0))


def test_the_outputs_of_a_prompt_share_its_memory() -> None:
    one, many = DecodeCache(None, torch.device("cpu")), DecodeCache(None, torch.device("cpu"))
    one.enter({0: states(1000)}, [(Segment(0, 1000), 1)])
    many.enter({0: states(1000)}, [(Segment(0, 1000), 8)])
    assert many.allocated_tokens - one.allocated_tokens < 1000


class Dense:
    """Keeps all keys and values of each output and attends to them in float64."""

    def __init__(self, prefix: KeyValues | None) -> None:
        self.prefix = prefix
        self.rows: list[KeyValues] = []

    def enter(self, keys: Tensor, values: Tensor, prompts: list[tuple[Segment, int]]) -> None:
        for prompt, outputs in prompts:
            own = slice(prompt.start, prompt.end)
            row = keys[0, :, own], values[0, :, own]
            if self.prefix:
                row = torch.cat([self.prefix[0][0], row[0]], 1), torch.cat([self.prefix[1][0], row[1]], 1)
            self.rows += [row] * outputs

    def attend(self, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        outputs = []
        for row, (keys, values) in enumerate(self.rows):
            self.rows[row] = torch.cat([keys, key[row]], 1), torch.cat([values, value[row]], 1)
            visible = slice(None if window is None else -window, None)
            keys, values = (each[:, visible].repeat_interleave(GROUPS, 0) for each in self.rows[row])
            outputs.append((query[row] @ keys.transpose(1, 2) / SIZE**0.5).softmax(-1) @ values)
        return torch.stack(outputs)


@given(
    prefix=st.sampled_from([0, 70]),
    window=st.sampled_from([None, 3, 90]),
    rounds=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(1, 150), st.integers(1, 5)), min_size=1, max_size=4),  # prompts and outputs
            st.integers(1, 4),  # steps
            st.integers(0, 2**20),  # outputs that end
        ),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 100),
)
def test_attention_equals_that_over_all_keys(
    prefix: int, window: int | None, rounds: list[tuple[list[tuple[int, int]], int, int]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shared = (random(1, HEADS, prefix, SIZE), random(1, HEADS, prefix, SIZE)) if prefix else None
    cache = DecodeCache(SharedPrefix({0: shared}) if shared else None, torch.device("cpu"))
    dense = Dense(shared)
    for prompts, steps, ended in rounds:
        bounds = torch.tensor([0, *(tokens for tokens, _ in prompts)]).cumsum(0).tolist()
        segments = [
            (Segment(start, end), outputs)
            for start, end, (_, outputs) in zip(bounds, bounds[1:], prompts, strict=False)
        ]
        keys, values = random(1, HEADS, bounds[-1], SIZE), random(1, HEADS, bounds[-1], SIZE)
        cache.enter({0: (keys, values)}, segments)
        dense.enter(keys, values, segments)
        for _ in range(steps):
            rows = len(dense.rows)
            positions = cache.advance()
            assert positions[:, 0].tolist() == [keys.shape[1] for keys, _ in dense.rows]
            query, key, value = (random(rows, heads, 1, SIZE) for heads in (HEADS * GROUPS, HEADS, HEADS))
            expected = dense.attend(query, key, value, window)
            torch.testing.assert_close(cache.attend(0, query, key, value, None, window), expected)
        order = without_gaps([not ended >> row & 1 for row in range(len(dense.rows))])
        cache.keep(order)
        dense.rows = [dense.rows[row] for row in order]
        assert cache.prompts <= len(dense.rows)


@given(st.lists(st.booleans(), max_size=12))
def test_only_the_last_kept_rows_move(kept: list[bool]) -> None:
    order = without_gaps(kept)
    assert sorted(order) == [row for row, is_kept in enumerate(kept) if is_kept]
    assert all(target == row for target, row in enumerate(order) if row < len(order))
