"""What running outputs have seen: keys and values, a row each, in buffers that grow with the longest of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from guardreasoner.model.batch import Segment
from guardreasoner.model.packed_attention import KeyValues, SharedPrefix

_BLOCK = 128
"""Tokens by which the buffers grow: room for the longest output from the start would seldom be used."""


class DecodeCache:
    """The context of the next token of every running output (:class:`guardreasoner.model.packed_attention.Context`).

    Outputs have the rows 0, 1, ... of the buffers without a gap; each is as long as it is. What all of them begin with
    is held once.

    Args:
        rows: most outputs that run at once.
        prefix: what all outputs follow.
        device: where tensors are made.
    """

    def __init__(self, rows: int, prefix: SharedPrefix | None, device: torch.device) -> None:
        self.rows = rows
        self.prefix = prefix
        self.lengths: list[int] = []
        """Tokens of each running output after the prefix."""
        self._device = device
        self._layers: dict[int, KeyValues] = {}
        self._room = 0
        self._places = self._rows = torch.empty(0, dtype=torch.int64, device=device)
        self._longest = 0
        self._masks: dict[int | None, tuple[Tensor | None, Tensor]] = {}

    def enter(self, kv_out: dict[int, KeyValues], prompts: Sequence[tuple[Segment, int]]) -> None:
        """Append rows.

        Args:
            kv_out: keys and values of a packed row by layer, (1, key heads, T, head size) each.
            prompts: for each, its tokens in that row, and how many outputs follow it.
        """
        lengths = [prompt.end - prompt.start for prompt, copies in prompts for _ in range(copies)]
        self._make_room(max(lengths), kv_out)
        for layer, pair in kv_out.items():
            for buffer, states in zip(self._layers[layer], pair, strict=True):
                first = len(self.lengths)
                # what rows held before is hidden by masks, but no mask hides an infinity or a NaN from a product
                buffer[first : first + len(lengths)] = 0
                for prompt, copies in prompts:
                    tokens = states[:, :, prompt.start : prompt.end]
                    buffer[first : first + copies, :, : tokens.shape[2]] = tokens
                    first += copies
        self.lengths += lengths

    def keep(self, order: Sequence[int]) -> None:
        """Keep the rows named, each moved to its place in ``order``; none moves to a higher place."""
        self.lengths = [self.lengths[row] for row in order]
        moved = [(place, row) for place, row in enumerate(order) if place != row]
        if moved:
            places, rows = torch.tensor(moved, device=self._device).T
            for pair in self._layers.values():
                for buffer in pair:
                    buffer[places] = buffer[rows]

    def advance(self) -> Tensor:
        """Make ready for one more token of every row; return its position, (rows, 1) int64."""
        self._make_room(max(self.lengths) + 1, self._layers)
        self._places = torch.tensor(self.lengths, device=self._device)
        self._rows = torch.arange(len(self.lengths), device=self._device)
        self.lengths = [length + 1 for length in self.lengths]
        self._longest = max(self.lengths)
        self._masks = {}
        return self._places[:, None] + (self.prefix.length if self.prefix else 0)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Attend with one query a row, (rows, heads, 1, head size).

        The query heads that share a key head are the queries of one product, so that no key is repeated; and all rows
        are the queries of one product with the beginning's keys. One softmax goes over both sets of scores.
        """
        rows, heads, _, size = query.shape
        groups = key.shape[1], heads // key.shape[1]
        keys, values = self._layers[layer]
        keys[self._rows, :, self._places] = key[:, :, 0]
        values[self._rows, :, self._places] = value[:, :, 0]
        keys, values = (buffer[:rows, :, : self._longest] for buffer in (keys, values))
        wanted = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows, *groups, size)
        before, own = self._unseen(window)
        exact = torch.promote_types(query.dtype, torch.float32)
        scores = (wanted @ keys.transpose(2, 3)).to(exact).masked_fill_(own, -torch.inf)
        if self.prefix is None:
            found = scores.softmax(-1).to(value.dtype) @ values
            return found.reshape(rows, heads, 1, size)
        first_keys, first_values = (one[0] for one in self.prefix.layers[layer])
        first = _across(wanted, first_keys.transpose(1, 2)).to(exact)
        if before is not None:
            first = first.masked_fill(before, -torch.inf)
        weights = torch.cat([first, scores], dim=3).softmax(-1).to(value.dtype)
        length = first_keys.shape[1]
        found = _across(weights[..., :length], first_values) + weights[..., length:] @ values
        return found.reshape(rows, heads, 1, size)

    def _unseen(self, window: int | None) -> tuple[Tensor | None, Tensor]:
        """Return what a row does not see, (rows, 1, 1, keys) bool: of the beginning (None: it sees all), of its own."""
        length = self.prefix.length if self.prefix else 0
        if window is not None and length + self._longest <= window:
            window = None
        if window not in self._masks:
            here = self._places[:, None, None, None]
            own, before = torch.arange(self._longest, device=self._device), None
            hidden = own > here
            if window is not None:
                hidden |= own <= here - window
                before = torch.arange(-length, 0, device=self._device) <= here - window
            self._masks[window] = before, hidden
        return self._masks[window]

    def _make_room(self, wanted: int, like: dict[int, KeyValues]) -> None:
        """Widen the buffers, if need be, to hold ``wanted`` tokens a row; ``like`` has the layers' shapes and types."""
        if wanted <= self._room:
            return
        self._room = -(-wanted // _BLOCK) * _BLOCK
        for layer, states in like.items():
            old = self._layers.get(layer, (None, None))
            self._layers[layer] = self._widened(old[0], states[0]), self._widened(old[1], states[1])

    def _widened(self, old: Tensor | None, like: Tensor) -> Tensor:
        wider = like.new_zeros(self.rows, like.shape[1], self._room, like.shape[3])
        if old is not None:
            wider[: len(self.lengths), :, : old.shape[2]] = old[: len(self.lengths)]
        return wider


def _across(wanted: Tensor, shared: Tensor) -> Tensor:
    """Return the product of (rows, key heads, groups, n) with what all rows share, (key heads, n, m)."""
    rows, heads, groups, inner = wanted.shape
    found = wanted.transpose(0, 1).reshape(heads, rows * groups, inner) @ shared
    return found.view(heads, rows, groups, -1).transpose(0, 1)
