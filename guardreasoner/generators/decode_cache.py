"""Keys and values of the outputs that are being decoded; what outputs share is stored and read once."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from guardreasoner.generators.paged_states import PagedStates
from guardreasoner.model.batch import Segment
from guardreasoner.model.packed_attention import KeyValues, SharedPrefix


class DecodeCache:
    """Attention context of the next token of each output (:class:`guardreasoner.model.packed_attention.Context`).

    The prefix that all prompts share is stored once, the rest of a prompt once for all its outputs, and each output has
    a row of its own. All outputs of a prompt are queries of one product with its keys. A single softmax covers the
    three parts.

    Args:
        prefix: tokens that precede every prompt; None if there are none.
        device: where tensors are allocated.
    """

    _own_positions: Tensor
    """Position of the new token of each output after its prompt, (rows,) int64; like those below set by advance()."""
    _prompt_lengths: Tensor
    """Tokens of the prompt of each output, (rows,) int64."""
    _slots: "_Slots"
    _prompt_reads: list[tuple[int, slice]]
    _output_reads: list[tuple[int, slice]]
    _masks: dict[int | None, tuple[Tensor | None, Tensor]]

    def __init__(self, prefix: SharedPrefix | None, device: torch.device) -> None:
        self.prefix = prefix
        self._device = device
        self._prompts = PagedStates(device)
        self._outputs = PagedStates(device)
        self._prompt_of: list[int] = []
        """The prompt of each output."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each output after the prefix, those of its prompt included."""
        prompts = [self._prompts.lengths[prompt] for prompt in self._prompt_of]
        return [prompt + own for prompt, own in zip(prompts, self._outputs.lengths, strict=True)]

    @property
    def prompts(self) -> int:
        """Number of prompts that have outputs."""
        return len(self._prompts.lengths)

    @property
    def allocated_tokens(self) -> int:
        """Number of tokens after the prefix for which there is memory."""
        return self._prompts.allocated_tokens + self._outputs.allocated_tokens

    def enter(
        self, kv_out: dict[int, KeyValues], prompts: Sequence[tuple[Segment, int]], coming: tuple[int, int] = (0, 0)
    ) -> None:
        """Append prompts and a row for each of their outputs.

        Args:
            kv_out: keys and values of a packed row by layer, each (1, key heads, T, head size).
            prompts: the segment of each prompt in that row, and the number of its outputs.
            coming: prompts and outputs that will be appended next; with them, the buffers grow once for all.
        """
        rows = self._prompts.enter([prompt.end - prompt.start for prompt, _ in prompts], coming[0], kv_out)
        for layer, (keys, values) in kv_out.items():
            for row, (prompt, _) in enumerate(prompts, rows.start):
                own = slice(prompt.start, prompt.end)
                self._prompts.write(row, layer, keys[0, :, own], values[0, :, own])
        new = [row for row, (_, outputs) in enumerate(prompts, rows.start) for _ in range(outputs)]
        self._outputs.enter([0] * len(new), coming[1], kv_out)
        self._prompt_of += new

    def keep(self, order: Sequence[int]) -> None:
        """Keep only the outputs in ``order``; output ``order[i]`` moves to row i, which must not be higher."""
        self._outputs.keep(order)
        prompt_of = [self._prompt_of[row] for row in order]
        has_outputs = set(prompt_of)
        prompts = without_gaps([prompt in has_outputs for prompt in range(self.prompts)])
        self._prompts.keep(prompts)
        moved = {old: new for new, old in enumerate(prompts)}
        self._prompt_of = [moved[prompt] for prompt in prompt_of]

    def advance(self) -> Tensor:
        """Make room for one more token in every row; return the tokens' positions, (rows, 1) int64."""
        self._own_positions = torch.tensor(self._outputs.lengths, device=self._device)
        self._prompt_lengths = torch.tensor([self._prompts.lengths[n] for n in self._prompt_of], device=self._device)
        self._outputs.lengthen()
        self._slots = _Slots(self._prompt_of, self.prompts, self._device)
        self._prompt_reads, self._output_reads = self._prompts.reads(), self._outputs.reads()
        self._masks = {}
        prefix = self.prefix.length if self.prefix else 0
        return (self._own_positions + self._prompt_lengths + prefix)[:, None]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Store the new token's key and value in every row and attend to all keys of the row.

        Query heads that share a key head are queries of one matrix product, so no key is repeated.

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
        self._outputs.append(layer, self._own_positions, key[:, :, 0], value[:, :, 0])
        rows, heads, _, size = query.shape
        groups = key.shape[1], heads // key.shape[1]
        scaled = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows, *groups, size)
        prefix = self.prefix.length if self.prefix else 0
        prompt, own = slice(prefix, prefix + self._prompts.padded), slice(prefix + self._prompts.padded, None)
        scores = scaled.new_empty(
            rows,
            *groups,
            prompt.stop + self._outputs.padded,
            dtype=torch.promote_types(query.dtype, torch.float32),
        )
        if self.prefix is not None:
            prefix_keys, prefix_values = (states[0] for states in self.prefix.layers[layer])
            scores[..., :prefix] = _shared_product(scaled, prefix_keys.transpose(1, 2))
        by_prompt = scores.new_empty(self.prompts, groups[0], self._slots.count * groups[1], self._prompts.padded)
        self._prompts.score(layer, self._slots.gather(scaled), self._prompt_reads, by_prompt)
        scores[..., prompt] = self._slots.scatter(by_prompt)
        self._outputs.score(layer, scaled, self._output_reads, scores[..., own])
        hidden_prefix, hidden = self._hidden_keys(window)
        scores[..., prefix:].masked_fill_(hidden, -torch.inf)
        if hidden_prefix is not None:
            scores[..., :prefix].masked_fill_(hidden_prefix, -torch.inf)
        weights = scores.softmax(-1).to(value.dtype)
        output = self._outputs.weigh(layer, weights[..., own], self._output_reads)
        by_prompt = self._prompts.weigh(layer, self._slots.gather(weights[..., prompt]), self._prompt_reads)
        output += self._slots.scatter(by_prompt)
        if self.prefix is not None:
            output += _shared_product(weights[..., :prefix], prefix_values)
        return output.reshape(rows, heads, 1, size)

    def _hidden_keys(self, window: int | None) -> tuple[Tensor | None, Tensor]:
        """Return bool masks, True where a row must not attend.

        Returns:
            (rows, 1, 1, prefix keys) for the prefix, None if all of it is visible; (rows, 1, 1, keys) for the keys of
            the prompts followed by those of the outputs.
        """
        prefix = self.prefix.length if self.prefix else 0
        if window is not None and prefix + max(self.lengths) <= window:
            window = None
        if window not in self._masks:
            own, prompt = self._own_positions[:, None], self._prompt_lengths[:, None]
            prompt_keys = torch.arange(self._prompts.padded, device=self._device)
            own_keys = torch.arange(self._outputs.padded, device=self._device)
            in_prompt, in_output, hidden_prefix = prompt_keys >= prompt, own_keys > own, None
            if window is not None:
                in_prompt |= prompt_keys <= prompt + own - window
                in_output |= own_keys <= own - window
                prefix_keys = torch.arange(-prefix, 0, device=self._device)
                hidden_prefix = (prefix_keys <= prompt + own - window)[:, None, None]
            self._masks[window] = hidden_prefix, torch.cat([in_prompt, in_output], dim=1)[:, None, None]
        return self._masks[window]


class _Slots:
    """Arranges tensors of outputs by prompt; each prompt has as many slots as the most outputs of one.

    Args:
        prompt_of: the prompt of each output.
        prompts: number of prompts.
        device: where tensors are allocated.
    """

    def __init__(self, prompt_of: Sequence[int], prompts: int, device: torch.device) -> None:
        filled: Counter[int] = Counter()
        slots = []
        for prompt in prompt_of:
            slots.append(filled[prompt])
            filled[prompt] += 1
        self.count = max(filled.values())
        """Slots of a prompt."""
        self._is_identity = list(prompt_of) == list(range(prompts))
        places = [prompt * self.count + slot for prompt, slot in zip(prompt_of, slots, strict=True)]
        self._place_of = torch.tensor(places, device=device)
        # an empty slot computes the first output once more, which scatter() leaves out
        self._output_at = torch.zeros(prompts * self.count, dtype=torch.int64, device=device)
        self._output_at[self._place_of] = torch.arange(len(places), device=device)

    def gather(self, states: Tensor) -> Tensor:
        """Arrange (outputs, key heads, groups, n) as (prompts, key heads, slots × groups, n)."""
        if self._is_identity:
            return states
        _, heads, groups, size = states.shape
        by_slot = states[self._output_at].view(-1, self.count, heads, groups, size)
        return by_slot.transpose(1, 2).reshape(-1, heads, self.count * groups, size)

    def scatter(self, states: Tensor) -> Tensor:
        """Undo :meth:`gather`."""
        if self._is_identity:
            return states
        prompts, heads, queries, size = states.shape
        by_slot = states.view(prompts, heads, self.count, queries // self.count, size).transpose(1, 2)
        return by_slot[self._place_of // self.count, self._place_of % self.count]


def without_gaps(kept: Sequence[bool]) -> list[int]:
    """Return the rows that are kept, the last ones moved into the positions of the others."""
    order = list(range(len(kept)))
    for row in reversed(range(len(kept))):
        if not kept[row]:
            last = order.pop()
            if row < len(order):
                order[row] = last
    return order


def _shared_product(states: Tensor, shared: Tensor) -> Tensor:
    """Multiply (rows, key heads, groups, n) by a matrix per key head that all rows share, (key heads, n, m)."""
    rows, heads, groups, inner = states.shape
    product = states.transpose(0, 1).reshape(heads, rows * groups, inner) @ shared
    return product.view(heads, rows, groups, -1).transpose(0, 1)
