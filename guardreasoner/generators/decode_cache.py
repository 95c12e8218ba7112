"""Keys and values of the outputs that are being decoded: one row each, in buffers that grow with the longest output."""

from collections.abc import Sequence

import torch
from torch import Tensor

from guardreasoner.model.batch import Segment
from guardreasoner.model.packed_attention import KeyValues, SharedPrefix

_BLOCK_ROWS = 8
"""Adjacent rows that attend together where attending all together would read much padding."""

_MIN_SAVED = 1 << 21
"""Values of padding (keys of a layer) that such blocks must save, since each block is some more operations."""

_BLOCK = 128
"""Tokens by which the buffers grow. Outputs rarely reach the maximum length, so it is not allocated at the start."""


class DecodeCache:
    """Attention context of the next token of each output (:class:`guardreasoner.model.packed_attention.Context`).

    Outputs occupy the rows 0, 1, … of the buffers without gaps, each with a length of its own. The prefix that all
    outputs share is stored once.

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
        self._allocated = (0, 0)
        """Rows of the buffers, and tokens of each row."""
        self._positions = self._rows = torch.empty(0, dtype=torch.int64, device=device)
        self._longest = 0
        self._blocks: list[tuple[slice, int]] = []
        """Rows that attend together, and the tokens of the longest of them."""
        self._masks: dict[int | None, tuple[Tensor | None, Tensor]] = {}

    def enter(self, kv_out: dict[int, KeyValues], prompts: Sequence[tuple[Segment, int]]) -> None:
        """Append rows.

        Args:
            kv_out: keys and values of a packed row by layer, each (1, key heads, T, head size).
            prompts: the segment of each prompt in that row, and the number of outputs that follow the prompt.
        """
        lengths = [prompt.end - prompt.start for prompt, copies in prompts for _ in range(copies)]
        self._reserve(len(self.lengths) + len(lengths), max(self.lengths + lengths), kv_out)
        for layer, pair in kv_out.items():
            for buffer, states in zip(self._layers[layer], pair, strict=True):
                first = len(self.lengths)
                # stale values are masked, but a mask does not remove an infinity or a NaN from a matrix product
                buffer[first : first + len(lengths)] = 0
                for prompt, copies in prompts:
                    tokens = states[:, :, prompt.start : prompt.end]
                    buffer[first : first + copies, :, : tokens.shape[2]] = tokens
                    first += copies
        self.lengths += lengths

    def keep(self, order: Sequence[int]) -> None:
        """Keep only the rows in ``order``; row ``order[i]`` moves to row i, which must not be higher."""
        self.lengths = [self.lengths[row] for row in order]
        moves = [(target, row) for target, row in enumerate(order) if target != row]
        if moves:
            targets, rows = torch.tensor(moves, device=self._device).T
            for pair in self._layers.values():
                for buffer in pair:
                    buffer[targets] = buffer[rows]

    def advance(self) -> Tensor:
        """Make room for one more token in every row; return the tokens' positions, (rows, 1) int64."""
        self._reserve(len(self.lengths), max(self.lengths) + 1, self._layers)
        self._positions = torch.tensor(self.lengths, device=self._device)
        self._rows = torch.arange(len(self.lengths), device=self._device)
        self.lengths = [length + 1 for length in self.lengths]
        self._longest = max(self.lengths)
        self._blocks = self._row_blocks()
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
        keys[self._rows, :, self._positions] = key[:, :, 0]
        values[self._rows, :, self._positions] = value[:, :, 0]
        scaled = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows, *groups, size)
        hidden_prefix, hidden = self._hidden_keys(window)
        exact = torch.promote_types(query.dtype, torch.float32)
        prefix_length, prefix_values, prefix_scores = 0, None, None
        if self.prefix is not None:
            prefix_keys, prefix_values = (states[0] for states in self.prefix.layers[layer])
            prefix_length = prefix_keys.shape[1]
            prefix_scores = _shared_product(scaled, prefix_keys.transpose(1, 2)).to(exact)
            if hidden_prefix is not None:
                prefix_scores = prefix_scores.masked_fill(hidden_prefix, -torch.inf)
        outputs = []
        for block, tokens in self._blocks:
            own_keys, own_values = (buffer[block, :, :tokens] for buffer in (keys, values))
            scores = (scaled[block] @ own_keys.transpose(2, 3)).to(exact)
            scores = scores.masked_fill_(hidden[block, ..., :tokens], -torch.inf)
            if prefix_values is None or prefix_scores is None:
                outputs.append(scores.softmax(-1).to(value.dtype) @ own_values)
                continue
            weights = torch.cat([prefix_scores[block], scores], dim=3).softmax(-1).to(value.dtype)
            output = _shared_product(weights[..., :prefix_length], prefix_values)
            outputs.append(output + weights[..., prefix_length:] @ own_values)
        return torch.cat(outputs).reshape(rows, heads, 1, size)

    def _row_blocks(self) -> list[tuple[slice, int]]:
        """Return the rows in blocks if their padding costs much on a CPU, which reads all of it; else in one block."""
        rows = len(self.lengths)
        keys, _ = next(iter(self._layers.values()))
        starts = range(0, rows, _BLOCK_ROWS)
        blocks = [(slice(i, min(i + _BLOCK_ROWS, rows)), max(self.lengths[i : i + _BLOCK_ROWS])) for i in starts]
        read = sum((block.stop - block.start) * tokens for block, tokens in blocks)
        saved = (rows * self._longest - read) * keys.shape[1] * keys.shape[3]
        return blocks if keys.device.type == "cpu" and saved >= _MIN_SAVED else [(slice(0, rows), self._longest)]

    def _hidden_keys(self, window: int | None) -> tuple[Tensor | None, Tensor]:
        """Return bool masks, True where a row must not attend.

        Returns:
            (rows, 1, 1, prefix keys) for the prefix, None if all of it is visible; (rows, 1, 1, keys) for own keys.
        """
        length = self.prefix.length if self.prefix else 0
        if window is not None and length + self._longest <= window:
            window = None
        if window not in self._masks:
            current = self._positions[:, None, None, None]
            positions, hidden_prefix = torch.arange(self._longest, device=self._device), None
            hidden = positions > current
            if window is not None:
                hidden |= positions <= current - window
                hidden_prefix = torch.arange(-length, 0, device=self._device) <= current - window
            self._masks[window] = hidden_prefix, hidden
        return self._masks[window]

    def _reserve(self, rows: int, tokens: int, states_by_layer: dict[int, KeyValues]) -> None:
        """Grow the buffers, if necessary; the states give each layer's shape and dtype.

        More tokens keep the number of rows. More rows keep only the tokens that are needed, so that many short outputs
        that follow a few long ones do not get rows of the long ones' length.
        """
        most_rows, most_tokens = self._allocated
        if rows <= most_rows and tokens <= most_tokens:
            return
        self._allocated = max(rows, most_rows), -(-tokens // _BLOCK) * _BLOCK
        for layer, states in states_by_layer.items():
            old = self._layers.get(layer, (None, None))
            self._layers[layer] = self._resized(old[0], states[0]), self._resized(old[1], states[1])

    def _resized(self, buffer: Tensor | None, states: Tensor) -> Tensor:
        rows, tokens = self._allocated
        resized = states.new_zeros(rows, states.shape[1], tokens, states.shape[3])
        if buffer is not None and self.lengths:
            used = slice(len(self.lengths)), slice(None), slice(max(self.lengths))
            resized[used] = buffer[used]
        return resized


def _shared_product(states: Tensor, shared: Tensor) -> Tensor:
    """Multiply (rows, key heads, groups, n) by a matrix per key head that all rows share, (key heads, n, m)."""
    rows, heads, groups, inner = states.shape
    product = states.transpose(0, 1).reshape(heads, rows * groups, inner) @ shared
    return product.view(heads, rows, groups, -1).transpose(0, 1)
