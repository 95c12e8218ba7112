"""Attention over a packed row as one kernel (FlexAttention) for GPUs: each key is visible to an interval of queries.

The segments of a row are in depth-first order, so the queries that see a token are one interval: from the token itself
to the end of the last segment below its own. Rows are padded to a few lengths, so that few kernels are compiled.

Shapes: T tokens of a row, P tokens of the shared prefix; both are padded, to T' and P'.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from guardreasoner.model.batch import Segment

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

log = logging.getLogger("guardreasoner")

BLOCK = 128
"""Queries and keys of a block, for which a kernel computes or skips the scores together."""

MAX_KERNELS = 64
"""Most compiled variants: lengths of row and prefix, with and without gradient or window."""


class TooManyKernels(Exception):
    """The variants of :data:`MAX_KERNELS` are compiled, and this would be another one."""


class Kernel(Protocol):
    """Computes attention under a mask; takes the arguments of PyTorch's ``flex_attention``."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        block_mask: "BlockMask",
        scale: float | None,
        enable_gqa: bool,
    ) -> Tensor: ...


@cache
def compiled_kernel(backend: Any = "inductor") -> Kernel:
    """Return FlexAttention, compiled once for each padded shape.

    Args:
        backend: compiler, as in ``torch.compile``; "eager" only traces.
    """
    from torch.nn.attention.flex_attention import flex_attention  # loads the compiler

    compiled = torch.compile(flex_attention, backend=backend, dynamic=False, fullgraph=True)

    refused = set[tuple[Any, ...]]()

    def kernel(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        mask = options["block_mask"].mask_mod.__name__
        variant = (query.shape, key.shape, query.dtype, torch.is_grad_enabled(), mask)
        if variant in refused:  # each attempt would trace and warn again
            raise TooManyKernels
        try:
            with torch._dynamo.config.patch(recompile_limit=MAX_KERNELS):  # 8 by default
                output: Tensor = compiled(query, key, value, **options)
        except torch._dynamo.exc.FailOnRecompileLimitHit:
            if not refused:
                log.warning(
                    "the limit of %d FlexAttention kernels is reached: rows of other lengths attend segment by segment",
                    MAX_KERNELS,
                )
            refused.add(variant)
            raise TooManyKernels from None
        return output

    return kernel


def kernel_for(query: Tensor) -> Kernel | None:
    """Return the kernel for the device, data type and head size of a query; None if there is none.

    A CPU has none: FlexAttention has no backward pass there.
    """
    if not query.is_cuda or query.dtype == torch.float64 or query.shape[-1] < 16:
        return None
    from torch.utils._triton import has_triton

    return compiled_kernel() if has_triton() else None


def padded_length(tokens: int) -> int:
    """Return the next of 0, 128, 256, 384, 512, 768, 1,024, 1,536, 2,048, …: two lengths per doubling."""
    if not tokens:
        return 0
    power = 1 << max(7, (tokens - 1).bit_length())
    between = 3 * power // 4
    return between if tokens <= between and between % BLOCK == 0 else power


class FlexRow:
    """The masks of a packed row, computed once for all layers.

    Args:
        segments: segments of the row, in depth-first order.
        prefix: P, tokens of the shared prefix, which all tokens of the row attend to.
        device: where the masks are.

    Raises:
        ValueError: the segments are not in depth-first order.
    """

    def __init__(self, segments: Sequence[Segment], prefix: int, device: torch.device) -> None:
        self.tokens = segments[-1].end
        self.row, self.prefix = padded_length(self.tokens), padded_length(prefix)
        ends, positions = _subtree_ends(segments), _positions(segments, prefix)
        pad = range(self.tokens, self.row)  # a padding token sees itself, so that no row of scores is empty
        hidden = [0] * (self.prefix - prefix)
        self._first = torch.tensor([*range(self.row), *[0] * self.prefix], device=device)
        """(T' + P',) int64, the first query that sees each key; the keys of the row come before those of the prefix."""
        self._end = torch.tensor([*ends, *(i + 1 for i in pad), *[self.row] * prefix, *hidden], device=device)
        """(T' + P',) int64, the query after the last one that sees each key."""
        self._position = torch.tensor([*positions, *[0] * len(pad), *range(prefix), *hidden], device=device)
        """(T' + P',) int64, the position of each key in its sequence."""
        self._masks: dict[int | None, BlockMask] = {}

    def attend(
        self,
        kernel: Kernel,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        prefix: tuple[Tensor, Tensor],
        scaling: float | None,
        window: int | None,
    ) -> Tensor:
        """Return the attention output of the row, (1, heads, T, head size).

        Args:
            kernel: computes the attention.
            query: (1, heads, T, head size).
            key: (1, key heads, T, head size).
            value: (1, key heads, T, head size).
            prefix: keys and values of the shared prefix, (1, key heads, P, head size) each.
            scaling: factor of the scores; None means 1 / sqrt(head size).
            window: number of most recent tokens that a token attends to, including itself; None means all.
        """
        if window not in self._masks:
            self._masks[window] = self._mask(window)
        keys, values = (
            torch.cat([_padded(states, self.row), _padded(first, self.prefix)], dim=2)
            for states, first in zip((key, value), prefix, strict=True)
        )
        output = kernel(
            _padded(query, self.row),
            keys,
            values,
            block_mask=self._masks[window],
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return output[:, :, : self.tokens]

    def _mask(self, window: int | None) -> "BlockMask":
        """Return the mask, with the blocks in which no score, or every score, is visible."""
        from torch.nn.attention.flex_attention import BlockMask

        first, end, position = self._first, self._end, self._position

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (first[key] <= query) & (query < end[key])

        def sees_in_window(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            assert window is not None
            return sees(batch, head, query, key) & (position[query] - position[key] < window)

        starts = torch.arange(0, self.row, BLOCK, device=first.device)[:, None]
        lasts = starts + BLOCK - 1
        (min_first, max_first), (min_end, max_end) = (x.view(-1, BLOCK).aminmax(dim=1) for x in (first, end))
        some = (min_first <= lasts) & (starts < max_end)
        every = (max_first <= starts) & (lasts < min_end)
        if window is not None:
            every = torch.zeros_like(every)
        return BlockMask.from_kv_blocks(
            *_listed(some & ~every),
            *_listed(every),
            BLOCK_SIZE=BLOCK,
            mask_mod=sees if window is None else sees_in_window,
            seq_lengths=(self.row, self.row + self.prefix),
        )


def _subtree_ends(segments: Sequence[Segment]) -> list[int]:
    """Return, for each token of a row, the end of the last segment below its own, (T,)."""
    ends = [segment.end for segment in segments]
    path: list[int] = []
    for index, segment in enumerate(segments):
        while path and path != list(segment.parents):
            path.pop()
        if path != list(segment.parents):
            raise ValueError(f"segment {index} does not follow its parents {segment.parents} in depth-first order")
        for parent in path:
            ends[parent] = segment.end
        path.append(index)
    return [end for segment, end in zip(segments, ends, strict=True) for _ in range(segment.start, segment.end)]


def _positions(segments: Sequence[Segment], prefix: int) -> list[int]:
    """Return the position of each token of a row in its sequence, (T,)."""
    positions: list[int] = []
    for segment in segments:
        first = prefix + sum(segments[parent].end - segments[parent].start for parent in segment.parents)
        positions += range(first, first + segment.end - segment.start)
    return positions


def _padded(states: Tensor, tokens: int) -> Tensor:
    return F.pad(states, (0, 0, 0, tokens - states.shape[2]))


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of key blocks of each query block, and their indices first, from (query, key blocks) bool."""
    indices = torch.argsort((~blocks).to(torch.int8), dim=1, stable=True)
    return blocks.sum(1, dtype=torch.int32)[None, None], indices.to(torch.int32)[None, None].contiguous()
