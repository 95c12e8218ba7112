"""FlexAttention over a packed row gives what the loop over its segments gives, with few compiled graphs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Example, Segment
from guardreasoner.model.flex_attention import Kernel, compiled_kernel, padded_length
from guardreasoner.model.packed_attention import PackedContext, SharedPrefix, TreeContext
from guardreasoner.model.packing import CompletionTree, packed, packed_trees
from tests.support.architectures import ARCHITECTURES, folders

__all__ = ["folders"]  # a fixture

PAIRS = [
    Example(
        str(n), (*range(3, 23), 30 + n, *range(40, 41 + 9 * n)), (tuple(range(50, 90)), tuple(range(60, 64 + 30 * n)))
    )
    for n in range(4)
]
"""Pairs whose prompts share 20 tokens; together they fill more than two blocks."""


def pair_row(prefix: int) -> tuple[Segment, ...]:
    segments = packed(PAIRS, 0, prefix).segments
    assert segments is not None
    return segments


def tree_row(prefix: int) -> tuple[Segment, ...]:
    completions = [(7,) * 40 + (n % 3,) * 30 + (n,) * (5 + n) for n in range(9)]
    trees = [CompletionTree((5, 6, 7), completions), CompletionTree((8,) * 70, completions[:2])]
    return packed_trees(trees, prefix, torch.device("cpu")).segments


def math_kernel(query: Tensor, key: Tensor, value: Tensor, *, block_mask: Any, scale: Any, enable_gqa: bool) -> Tensor:
    """FlexAttention's own dense implementation: on a CPU, the only one with a backward pass."""
    from torch._higher_order_ops.flex_attention import flex_attention

    def unchanged(score: Tensor, *indices: Tensor) -> Tensor:
        return score

    options = {"OUTPUT_LOGSUMEXP": True, "OUTPUT_MAX": False, "BACKEND": "AUTO"}
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    output: Tensor = flex_attention(query, key, value, unchanged, block_mask.as_tuple(), scale, options)[0]
    return output


def attended(
    context: type[PackedContext], segments: Sequence[Segment], states: Sequence[Tensor], window: int | None, kernel: Any
) -> Tensor:
    query, key, value, first, second = states
    prefix = SharedPrefix({0: (first, second)})
    return context(segments, prefix, kernel=kernel).attend(0, query, key, value, 0.3, window)


def random_states(tokens: int, prefix: int, grad: bool = False) -> list[Tensor]:
    """Return queries of four heads, keys and values of two, and those of the prefix."""
    torch.manual_seed(0)
    shapes = [(4, tokens), (2, tokens), (2, tokens), (2, prefix), (2, prefix)]
    return [torch.randn(1, *shape, 8, dtype=torch.float64, requires_grad=grad) for shape in shapes]


@pytest.mark.parametrize("window", [None, 12])
@pytest.mark.parametrize("prefix", [0, 20])
@pytest.mark.parametrize(("context", "row"), [(PackedContext, pair_row), (TreeContext, tree_row)])
def test_the_output_is_that_of_the_loop(context: Any, row: Any, prefix: int, window: int | None) -> None:
    segments = row(prefix)
    states = random_states(segments[-1].end, prefix)
    expected = attended(context, segments, states, window, None)
    found = attended(context, segments, states, window, compiled_kernel("eager"))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", [None, 12])
def test_the_gradients_are_those_of_the_loop(window: int | None) -> None:
    segments = pair_row(20)
    gradients = []
    for kernel in (None, math_kernel):
        states = random_states(segments[-1].end, 20, grad=True)
        attended(PackedContext, segments, states, window, kernel).sin().sum().backward()
        gradients.append([state.grad for state in states])
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_every_family_has_the_hidden_states_of_the_loop(name: str, dtype: Any, folders: Callable[[str], Path]) -> None:
    backbone = Backbone(str(folders(name)), dtype=dtype)
    backbone.load()
    batch = packed(PAIRS, 0)
    assert batch.prefix_ids is not None
    assert len(batch.prefix_ids) == 20
    prefix = backbone.encode_prefix(batch.prefix_ids)

    def hidden(kernel: Kernel | None) -> Tensor:
        context = PackedContext(batch.segments or (), prefix, kernel=kernel)
        return backbone.packed_hidden(batch.input_ids, batch.position_ids, context)

    expected, found = hidden(None), hidden(compiled_kernel("eager"))
    allowed = 1e-5 if dtype == "float32" else 0.03
    assert float((found - expected).norm()) <= allowed * float(expected.norm())


@pytest.mark.slow
@torch.no_grad()
def test_rows_of_many_lengths_compile_once_for_each_padded_length() -> None:
    counter = CompileCounter()
    kernel = compiled_kernel(counter)
    padded = set()
    for tokens in range(20, 800, 37):
        for prefix in (0, 5, tokens // 2):
            segments = [Segment(0, 4), Segment(4, 10, (0,)), Segment(10, tokens, (0,))]
            attended(PackedContext, segments, random_states(tokens, prefix), None, kernel)
            padded.add((padded_length(tokens), padded_length(prefix)))
    assert 10 < counter.frame_count <= len(padded) < 20


def test_two_lengths_per_doubling() -> None:
    lengths = sorted({padded_length(tokens) for tokens in range(4097)})
    assert lengths == [0, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096]
    assert all(padded_length(tokens) >= tokens for tokens in range(4097))


def test_segments_in_another_order_are_refused() -> None:
    segments = [Segment(0, 2), Segment(2, 4), Segment(4, 6, (0,))]
    with pytest.raises(ValueError, match="segment 2 does not follow its parents"):
        attended(PackedContext, segments, random_states(6, 0), None, compiled_kernel("eager"))


@torch.no_grad()
def test_beyond_the_most_variants_a_row_attends_segment_by_segment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("guardreasoner.model.flex_attention.MAX_KERNELS", 1)
    kernel = compiled_kernel(CompileCounter())
    for tokens in (40, 200, 300):
        segments, states = [Segment(0, 4), Segment(4, tokens, (0,))], random_states(tokens, 5)
        expected = attended(PackedContext, segments, states, None, None)
        torch.testing.assert_close(attended(PackedContext, segments, states, None, kernel), expected)
    said = [record.getMessage() for record in caplog.records if record.name == "guardreasoner"]
    assert said == ["the limit of 1 FlexAttention kernels is reached: rows of other lengths attend segment by segment"]
