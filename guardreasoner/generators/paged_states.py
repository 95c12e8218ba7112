"""Keys and values of rows of different lengths, in pages of tokens that grow with the longest row."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from guardreasoner.model.packed_attention import KeyValues

_GROUP = 8
"""Adjacent rows of which all or none read a page."""


def page_tokens(*, on_cpu: bool) -> int:
    """Return the tokens of a page: a CPU should read few padded tokens, other devices should launch few operations."""
    return 64 if on_cpu else 256


class PagedStates:
    """Keys and values by layer; the rows 0, 1, … have no gaps, each with a length of its own.

    The tokens of a row lie in pages, (pages, rows, key heads, …). A page that no row of a group reaches is not read for
    that group. The rows that read a page are contiguous, since a CPU would copy them before a product in bfloat16.
    Keys are stored transposed, because a CPU multiplies a few queries by such a matrix about twice as fast.

    Args:
        device: where tensors are allocated.
    """

    def __init__(self, device: torch.device) -> None:
        self.lengths: list[int] = []
        """Tokens of each row."""
        self.page = page_tokens(on_cpu=device.type == "cpu")
        """Tokens of a page."""
        self._device = device
        self._layers: dict[int, KeyValues] = {}
        """Keys (pages, rows, key heads, head size, page) and values (pages, rows, key heads, page, head size)."""
        self._allocated = (0, 0)
        """Pages and rows of the buffers."""

    @property
    def padded(self) -> int:
        """Number of tokens of all pages that some row reaches."""
        return -(-max(self.lengths, default=0) // self.page) * self.page

    @property
    def allocated_tokens(self) -> int:
        """Number of tokens, over all rows, for which there is memory."""
        return self._allocated[0] * self._allocated[1] * self.page

    def enter(self, lengths: Sequence[int], coming: int, states: dict[int, KeyValues]) -> slice:
        """Append rows without content.

        Args:
            lengths: tokens of each row.
            coming: rows that will be appended next; with them, the buffers grow once for all.
            states: keys and values of any rows, (…, key heads, T, head size), for the shape and dtype of each layer.

        Returns:
            The rows.
        """
        rows = slice(len(self.lengths), len(self.lengths) + len(lengths))
        self._reserve(rows.stop, coming, max([*self.lengths, *lengths]), states)
        self.lengths += lengths
        for buffer in (buffer for pair in self._layers.values() for buffer in pair):
            # stale values are masked, but a mask does not remove an infinity or a NaN from a matrix product
            buffer[:, rows] = 0
        return rows

    def write(self, row: int, layer: int, new_keys: Tensor, new_values: Tensor) -> None:
        """Write the first tokens of a row, each (key heads, tokens, head size)."""
        keys, values = self._layers[layer]
        for page, start in enumerate(range(0, new_keys.shape[1], self.page)):
            tokens = slice(start, min(start + self.page, new_keys.shape[1]))
            size = tokens.stop - start
            keys[page, row, :, :, :size] = new_keys[:, tokens].transpose(1, 2)
            values[page, row, :, :size] = new_values[:, tokens]

    def lengthen(self) -> None:
        """Make room for one more token in every row."""
        self._reserve(len(self.lengths), 0, max(self.lengths) + 1, self._layers)
        self.lengths = [length + 1 for length in self.lengths]

    def append(self, layer: int, positions: Tensor, key: Tensor, value: Tensor) -> None:
        """Write one token into every row.

        Args:
            layer: index of the layer.
            positions: position of the token in its row, (rows,) int64.
            key: (rows, key heads, head size).
            value: (rows, key heads, head size).
        """
        keys, values = self._layers[layer]
        rows = torch.arange(len(self.lengths), device=self._device)
        pages, offsets = positions // self.page, positions % self.page
        keys[pages, rows, :, :, offsets] = key
        values[pages, rows, :, offsets] = value

    def keep(self, order: Sequence[int]) -> None:
        """Keep only the rows in ``order``; row ``order[i]`` moves to row i, which must not be higher."""
        self.lengths = [self.lengths[row] for row in order]
        moves = [(target, row) for target, row in enumerate(order) if target != row]
        if moves:
            targets, rows = torch.tensor(moves, device=self._device).T
            for buffer in (buffer for pair in self._layers.values() for buffer in pair):
                buffer[:, targets] = buffer[:, rows]

    def reads(self) -> list[tuple[int, slice]]:
        """Return each page with each run of row groups that reach it; on devices other than a CPU, with all rows."""
        return list(self._pages_to_read()) if self.lengths else []

    def _pages_to_read(self) -> Iterator[tuple[int, slice]]:
        rows = len(self.lengths)
        size = _GROUP if self._device.type == "cpu" else rows
        longest = [max(self.lengths[start : start + size]) for start in range(0, rows, size)]
        for page in range(self.padded // self.page):
            start = 0
            for reaches, run in groupby(length > page * self.page for length in longest):
                end = start + len(list(run))
                if reaches:
                    yield page, slice(start * size, min(end * size, rows))
                start = end

    def score(self, layer: int, queries: Tensor, reads: Sequence[tuple[int, slice]], scores: Tensor) -> None:
        """Write the products of queries with keys; those with keys of a page that is not read stay as they are.

        Args:
            layer: index of the layer.
            queries: (rows, key heads, queries, head size).
            reads: pages and the rows that read them (:meth:`reads`).
            scores: (rows, key heads, queries, :attr:`padded`), is written.
        """
        keys, _ = self._layers[layer]
        for page, rows in reads:
            scores[rows, ..., page * self.page : (page + 1) * self.page] = queries[rows] @ keys[page, rows]

    def weigh(self, layer: int, weights: Tensor, reads: Sequence[tuple[int, slice]]) -> Tensor:
        """Return the weighted sums of values, (rows, key heads, queries, head size).

        Args:
            layer: index of the layer.
            weights: (rows, key heads, queries, :attr:`padded`); 0 for every token that a row does not have.
            reads: pages and the rows that read them (:meth:`reads`).
        """
        _, values = self._layers[layer]
        sums = weights.new_zeros(*weights.shape[:3], values.shape[-1])
        for page, rows in reads:
            sums[rows] += weights[rows, ..., page * self.page : (page + 1) * self.page] @ values[page, rows]
        return sums

    def _reserve(self, rows: int, coming: int, tokens: int, states_by_layer: dict[int, KeyValues]) -> None:
        """Grow the buffers, if necessary.

        More tokens keep the number of rows. More rows keep only the pages that are needed, so that many short rows that
        follow a few long ones do not get pages of the long ones.
        """
        pages = max(1, -(-tokens // self.page))
        most_pages, most_rows = self._allocated
        if pages <= most_pages and rows <= most_rows:
            return
        self._allocated = pages, max(rows + coming, most_rows)
        used = slice(self.padded // self.page), slice(len(self.lengths))
        for layer, (key_states, states) in states_by_layer.items():
            heads, size = states.shape[-3], states.shape[-1]
            # With mixed precision, keys have the data type of the rotary embedding, values that of the products.
            keys = key_states.new_zeros(*self._allocated, heads, size, self.page)
            values = states.new_zeros(*self._allocated, heads, self.page, size)
            if layer in self._layers:
                old_keys, old_values = self._layers[layer]
                keys[used], values[used] = old_keys[used], old_values[used]
            self._layers[layer] = keys, values
