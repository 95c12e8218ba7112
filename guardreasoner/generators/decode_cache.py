"""Keys and values of the outputs that are being decoded: one row each, in pages that grow with the longest output."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from guardreasoner.model.batch import Segment
from guardreasoner.model.packed_attention import KeyValues, SharedPrefix

_PAGE = 128
"""Tokens of a page on a CPU, where few padded tokens should be read."""

_LARGE_PAGE = 1024
"""Tokens of a page on other devices, where few operations should be launched."""

_GROUP = 8
"""Adjacent rows of which all or none read a page."""


class DecodeCache:
    """Attention context of the next token of each output (:class:`guardreasoner.model.packed_attention.Context`).

    Outputs occupy the rows 0, 1, … of the buffers without gaps, each with a length of its own. The prefix that all
    outputs share is stored once.

    The tokens of a row lie in pages, (pages, rows, key heads, …), so that rows read a page that none of their group
    reaches not at all, and the others as one contiguous block: a CPU copies other blocks before it multiplies bfloat16.
    Keys are stored transposed, because a CPU multiplies a few queries by such a matrix about twice as fast.

    Args:
        prefix: tokens that precede every output; None if there are none.
        device: where tensors are allocated.
    """

    def __init__(self, prefix: SharedPrefix | None, device: torch.device) -> None:
        self.prefix = prefix
        self.lengths: list[int] = []
        """Tokens of each active output after the prefix."""
        self._device = device
        self._layers: dict[int, KeyValues] = {}
        """Keys (pages, rows, key heads, head size, page) and values (pages, rows, key heads, page, head size)."""
        self._page = _PAGE if device.type == "cpu" else _LARGE_PAGE
        self._allocated = (0, 0)
        """Pages and rows of the buffers."""
        self._positions = self._rows = torch.empty(0, dtype=torch.int64, device=device)
        self._reads: list[tuple[int, slice]] = []
        """Pages, and the rows that read them."""
        self._masks: dict[int | None, tuple[Tensor | None, Tensor]] = {}

    def enter(self, kv_out: dict[int, KeyValues], prompts: Sequence[tuple[Segment, int]], coming: int = 0) -> None:
        """Append rows.

        Args:
            kv_out: keys and values of a packed row by layer, each (1, key heads, T, head size).
            prompts: the segment of each prompt in that row, and the number of outputs that follow the prompt.
            coming: rows that will be appended next; with them, the buffers grow once for all.
        """
        lengths = [prompt.end - prompt.start for prompt, copies in prompts for _ in range(copies)]
        first, rows = len(self.lengths), len(self.lengths) + len(lengths)
        self._reserve(rows, coming, max(self.lengths + lengths), kv_out)
        for layer, (new_keys, new_values) in kv_out.items():
            keys, values = self._layers[layer]
            # stale values are masked, but a mask does not remove an infinity or a NaN from a matrix product
            keys[:, first:rows] = 0
            values[:, first:rows] = 0
            start = first
            for prompt, copies in prompts:
                own = slice(start, start + copies)
                for page, offset in enumerate(range(prompt.start, prompt.end, self._page)):
                    tokens = slice(offset, min(offset + self._page, prompt.end))
                    size = tokens.stop - offset
                    keys[page, own, :, :, :size] = new_keys[:, :, tokens].transpose(2, 3)
                    values[page, own, :, :size] = new_values[:, :, tokens]
                start += copies
        self.lengths += lengths

    def keep(self, order: Sequence[int]) -> None:
        """Keep only the rows in ``order``; row ``order[i]`` moves to row i, which must not be higher."""
        self.lengths = [self.lengths[row] for row in order]
        moves = [(target, row) for target, row in enumerate(order) if target != row]
        if moves:
            targets, rows = torch.tensor(moves, device=self._device).T
            for pair in self._layers.values():
                for buffer in pair:
                    buffer[:, targets] = buffer[:, rows]

    def advance(self) -> Tensor:
        """Make room for one more token in every row; return the tokens' positions, (rows, 1) int64."""
        self._reserve(len(self.lengths), 0, max(self.lengths) + 1, self._layers)
        self._positions = torch.tensor(self.lengths, device=self._device)
        self._rows = torch.arange(len(self.lengths), device=self._device)
        self.lengths = [length + 1 for length in self.lengths]
        self._reads = list(self._pages_to_read())
        self._masks = {}
        return self._positions[:, None] + (self.prefix.length if self.prefix else 0)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Store the new token's key and value in every row and attend to all keys of the row.

        Query heads that share a key head are queries of one matrix product, so no key is repeated. All rows are queries
        of one product with the prefix keys. A single softmax covers the prefix scores and the row's own scores.

        Args:
            layer: index of the layer.
            query: (rows, heads, 1, head size).
            key: (rows, key heads, 1, head size).
            value: (rows, key heads, 1, head size).
            scaling: factor of the scores; None is 1 / √(head size).
            window: tokens of a sliding attention window; None is full attention.

        Returns:
            The attention output, (rows, heads, 1, head size).
        """
        rows, heads, _, size = query.shape
        groups = key.shape[1], heads // key.shape[1]
        keys, values = self._layers[layer]
        pages, offsets = self._positions // self._page, self._positions % self._page
        keys[pages, self._rows, :, :, offsets] = key[:, :, 0]
        values[pages, self._rows, :, offsets] = value[:, :, 0]
        scaled = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows, *groups, size)
        hidden_prefix, hidden = self._hidden_keys(window)
        prefix = 0 if self.prefix is None else self.prefix.length
        exact = torch.promote_types(query.dtype, torch.float32)
        scores = query.new_empty(rows, *groups, prefix + hidden.shape[-1], dtype=exact)
        if self.prefix is not None:
            prefix_keys, prefix_values = (states[0] for states in self.prefix.layers[layer])
            scores[..., :prefix] = _shared_product(scaled, prefix_keys.transpose(1, 2))
            if hidden_prefix is not None:
                scores[..., :prefix].masked_fill_(hidden_prefix, -torch.inf)
        for page, reading in self._reads:
            scores[reading, ..., self._columns(prefix, page)] = scaled[reading] @ keys[page, reading]
        scores[..., prefix:].masked_fill_(hidden, -torch.inf)
        weights = scores.softmax(-1).to(value.dtype)
        if self.prefix is not None:
            output = _shared_product(weights[..., :prefix], prefix_values).contiguous()
        else:
            output = torch.zeros_like(scaled)
        for page, reading in self._reads:
            output[reading] += weights[reading, ..., self._columns(prefix, page)] @ values[page, reading]
        return output.reshape(rows, heads, 1, size)

    def _columns(self, prefix: int, page: int) -> slice:
        """Return where the scores of a page's tokens lie."""
        return slice(prefix + page * self._page, prefix + (page + 1) * self._page)

    def _pages_to_read(self) -> Iterator[tuple[int, slice]]:
        """Yield each page with each run of row groups that reach it; on devices other than a CPU, with all rows."""
        rows = len(self.lengths)
        size = _GROUP if self._device.type == "cpu" else rows
        longest = [max(self.lengths[start : start + size]) for start in range(0, rows, size)]
        for page in range(-(-max(longest) // self._page)):
            start = 0
            for reaches, run in groupby(length > page * self._page for length in longest):
                end = start + len(list(run))
                if reaches:
                    yield page, slice(start * size, min(end * size, rows))
                start = end

    def _hidden_keys(self, window: int | None) -> tuple[Tensor | None, Tensor]:
        """Return bool masks, True where a row must not attend.

        Returns:
            (rows, 1, 1, prefix keys) for the prefix, None if all of it is visible; (rows, 1, 1, keys) for own keys.
        """
        length = self.prefix.length if self.prefix else 0
        longest = max(self.lengths)
        if window is not None and length + longest <= window:
            window = None
        if window not in self._masks:
            current = self._positions[:, None, None, None]
            padded = -(-longest // self._page) * self._page
            positions, hidden_prefix = torch.arange(padded, device=self._device), None
            hidden = positions > current
            if window is not None:
                hidden |= positions <= current - window
                hidden_prefix = torch.arange(-length, 0, device=self._device) <= current - window
            self._masks[window] = hidden_prefix, hidden
        return self._masks[window]

    def _reserve(self, rows: int, coming: int, tokens: int, states_by_layer: dict[int, KeyValues]) -> None:
        """Grow the buffers, if necessary; the states give each layer's shape and dtype.

        More tokens keep the number of rows. More rows keep only the pages that are needed, so that many short outputs
        that follow a few long ones do not get rows of the long ones' length.
        """
        pages = -(-tokens // self._page)
        most_pages, most_rows = self._allocated
        if pages <= most_pages and rows <= most_rows:
            return
        self._allocated = pages, max(rows + coming, most_rows)
        used = slice(-(-max(self.lengths, default=0) // self._page)), slice(len(self.lengths))
        for layer, (_, states) in states_by_layer.items():
            heads, size = states.shape[-3], states.shape[-1]
            keys = states.new_zeros(*self._allocated, heads, size, self._page)
            values = states.new_zeros(*self._allocated, heads, self._page, size)
            if layer in self._layers:
                old_keys, old_values = self._layers[layer]
                keys[used], values[used] = old_keys[used], old_values[used]
            self._layers[layer] = keys, values


def _shared_product(states: Tensor, shared: Tensor) -> Tensor:
    """Multiply (rows, key heads, groups, n) by a matrix per key head that all rows share, (key heads, n, m)."""
    rows, heads, groups, inner = states.shape
    product = states.transpose(0, 1).reshape(heads, rows * groups, inner) @ shared
    return product.view(heads, rows, groups, -1).transpose(0, 1)
