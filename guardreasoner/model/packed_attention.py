"""Attention over packed rows (:mod:`guardreasoner.model.packing`) for transformers decoders that support it.

Shapes: T tokens of a row, H hidden size.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from guardreasoner.model.batch import Segment
from guardreasoner.model.flex_attention import FlexRow, Kernel, TooManyKernels, kernel_for

_NAME = "guardreasoner"
"""Name of the attention function in transformers' registry."""

PACKED_FAMILIES = ("gemma", "llama", "mistral", "phi3", "qwen2", "qwen3")
"""``model_type`` of the decoders whose packed rows are tested against plain rows; all others get plain rows."""

_MAX_MASKED = 512
"""Tokens up to which the attention of a tree is computed at once with a mask, at the cost of full attention."""

KeyValues = tuple[Tensor, Tensor]
"""Keys and values of one layer: (rows, key heads, tokens, head size) each."""


class Context(Protocol):
    """What the tokens of a forward pass attend to; it is passed to the attention of every layer."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Return the attention output.

        Args:
            layer: index of the layer.
            query: (rows, heads, T, head size).
            key: (rows, key heads, T, head size).
            value: (rows, key heads, T, head size).
            scaling: factor of the scores; None means 1 / sqrt(head size).
            window: number of most recent tokens that a token attends to, including itself; None means all.

        Returns:
            (rows, heads, T, head size).
        """


class SharedPrefix:
    """Keys and values of the token prefix that many prompts share, computed once; all later tokens attend to them.

    Args:
        layers: keys and values by layer index, for one row each.
    """

    def __init__(self, layers: dict[int, KeyValues]) -> None:
        self.layers = layers

    @property
    def length(self) -> int:
        """Number of tokens."""
        return next(iter(self.layers.values()))[0].shape[2]

    def first(self, tokens: int) -> "SharedPrefix":
        """Return the first tokens of the prefix; the tensors are views."""
        return SharedPrefix({n: (k[:, :, :tokens], v[:, :, :tokens]) for n, (k, v) in self.layers.items()})

    def followed_by(self, later: "SharedPrefix") -> "SharedPrefix":
        """Return a prefix of these tokens and later ones, which were computed after them."""
        return SharedPrefix(
            {
                n: (torch.cat([k, later.layers[n][0]], dim=2), torch.cat([v, later.layers[n][1]], dim=2))
                for n, (k, v) in self.layers.items()
            }
        )

    def detached(self) -> "SharedPrefix":
        """Return a detached copy that accumulates gradients, so that several backward passes can share one prefix."""
        return SharedPrefix(
            {n: (k.detach().requires_grad_(), v.detach().requires_grad_()) for n, (k, v) in self.layers.items()}
        )

    def surrogate_loss(self, copy: "SharedPrefix") -> Tensor:
        """Return a scalar whose weight gradient equals the gradient accumulated in ``copy``, made by :meth:`detached`.

        It is Σ (keys or values) · (their accumulated gradient, a constant).
        """
        pairs = [pair for n, kv in self.layers.items() for pair in zip(kv, copy.layers[n], strict=True)]
        return torch.stack([(state * leaf.grad).sum() for state, leaf in pairs if leaf.grad is not None]).sum()


class PackedContext:
    """Context of a packed row: its segments, and their attention masks, computed once for all layers.

    Args:
        segments: segments of the row.
        prefix: prefix that every segment attends to and that is not in the row.
        kv_out: if given, receives the keys and values of each layer.
        kernel: computes the attention of all segments at once; None chooses it by the device, a CPU has none.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        prefix: SharedPrefix | None = None,
        kv_out: dict[int, KeyValues] | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        self.segments = tuple(segments)
        self.prefix = prefix
        self.kv_out = kv_out
        self.kernel = kernel
        self.full_hidden: Tensor | None = None
        """(1, T, H), normalized hidden states of the full row, input of the last layer's attention; None before it."""
        self._predict_positions: Tensor | None = None
        self._masks: dict[tuple[int, int, int | None], Tensor | None] = {}
        self._flex_row: FlexRow | None = None

    def predict_positions(self, device: torch.device) -> Tensor:
        """Return the positions of the row that predict a target, in ascending order, (positions,) int64."""
        if self._predict_positions is None:
            positions = [i for segment in self.segments for i in range(segment.end - segment.num_predict, segment.end)]
            self._predict_positions = torch.tensor(positions, device=device)
        return self._predict_positions

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Attend at once or segment by segment, (1, heads, T, head size); arguments as in :class:`Context`."""
        if self.kv_out is not None:
            self.kv_out[layer] = key, value
        kernel = self.kernel or kernel_for(query)
        if kernel is not None and len(self.segments) > 1:
            prefix = self._prefix(layer, key, value)
            if self._flex_row is None:
                self._flex_row = FlexRow(self.segments, prefix[0].shape[2], query.device)
            with suppress(TooManyKernels):  # then segment by segment
                return self._flex_row.attend(kernel, query, key, value, prefix, scaling, window)
        segments = range(len(self.segments))
        return _joined(self._attended(segments, layer, query, key, value, scaling, window))

    def _prefix(self, layer: int, key: Tensor, value: Tensor) -> KeyValues:
        """Return the keys and values of the shared prefix, which has no tokens if there is none."""
        return self.prefix.layers[layer] if self.prefix else (key[:, :, :0], value[:, :, :0])

    def _attended(
        self,
        indices: Iterable[int],
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        window: int | None,
    ) -> Iterator[Tensor]:
        """Yield the attention output of the segments at ``indices``.

        The row is split once: the backward pass of a slice would fill a gradient of the whole row, that of all parts
        together concatenates their gradients.
        """
        lengths = [segment.end - segment.start for segment in self.segments]
        queries, *parts = (states.split(lengths, dim=2) for states in (query, key, value))
        prefix = self._prefix(layer, key, value)
        for index in indices:
            visible = [*self.segments[index].parents, index]
            keys, values = (
                torch.cat([first, *(states[one] for one in visible)], dim=2)
                for first, states in zip(prefix, parts, strict=True)
            )
            mask = self._mask(lengths[index], keys.shape[2], window, query.device)
            yield F.scaled_dot_product_attention(
                queries[index],
                keys,
                values,
                attn_mask=mask,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )

    def _mask(self, queries: int, keys: int, window: int | None, device: torch.device) -> Tensor | None:
        """Return the mask of a segment, (queries, keys) bool; None if the plain causal mask does."""
        shape = (queries, keys, window if window is not None and keys > window else None)
        if shape not in self._masks:
            self._masks[shape] = None if keys == queries and shape[2] is None else _mask(*shape, device)
        return self._masks[shape]


class TreeContext(PackedContext):
    """Context of a row of trees (:class:`guardreasoner.model.packing.CompletionTree`), for scores without gradients.

    A tree has many short segments, so without a kernel for all segments a small tree attends at once with a mask, a
    large one segment by segment.

    Args:
        segments: segments of the row; those of a tree are adjacent, the first has no parents.
        prefix: prefix that every segment attends to and that is not in the row.
        kv_out: if given, receives the keys and values of each layer.
        kernel: as in :class:`PackedContext`.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        prefix: SharedPrefix | None = None,
        kv_out: dict[int, KeyValues] | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        super().__init__(segments, prefix, kv_out, kernel)
        roots = [index for index, segment in enumerate(self.segments) if not segment.parents]
        self._trees = list(pairwise([*roots, len(self.segments)]))
        self._tree_masks: dict[tuple[int, int | None], Tensor] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Attend at once or tree by tree, (1, heads, T, head size); arguments as in :class:`Context`."""
        if self.kernel or kernel_for(query):
            return super().attend(layer, query, key, value, scaling, window)
        if self.kv_out is not None:
            self.kv_out[layer] = key, value
        outputs: list[Tensor] = []
        for first, after in self._trees:
            span = slice(self.segments[first].start, self.segments[after - 1].end)
            if after - first == 1 or span.stop - span.start > _MAX_MASKED:
                outputs += self._attended(range(first, after), layer, query, key, value, scaling, window)
                continue
            keys, values = (
                torch.cat([prefix, states[:, :, span]], dim=2)
                for prefix, states in zip(self._prefix(layer, key, value), (key, value), strict=True)
            )
            if (first, window) not in self._tree_masks:
                mask = self._tree_mask(first, after, keys.shape[2], window)
                self._tree_masks[first, window] = torch.from_numpy(mask).to(query.device)
            outputs.append(
                F.scaled_dot_product_attention(
                    query[:, :, span],
                    keys,
                    values,
                    attn_mask=self._tree_masks[first, window],
                    scale=scaling,
                    enable_gqa=query.shape[1] != key.shape[1],
                )
            )
        return _joined(outputs)

    def _tree_mask(self, first: int, after: int, keys: int, window: int | None) -> "np.ndarray":
        """Return which keys the tokens of a tree attend to, (tokens, keys) bool; the keys begin with the prefix."""
        start = self.segments[first].start
        tokens = self.segments[after - 1].end - start
        prefix = keys - tokens
        visible = np.zeros((tokens, keys), dtype=bool)
        visible[:, :prefix] = True
        positions = np.arange(keys)
        for segment in self.segments[first:after]:
            parents = [self.segments[index] for index in segment.parents]
            own = slice(segment.start - start, segment.end - start)
            length = segment.end - segment.start
            for parent in parents:
                visible[own, prefix + parent.start - start : prefix + parent.end - start] = True
            visible[own, prefix + own.start : prefix + own.stop] = np.tri(length, dtype=bool)
            positions[prefix + own.start : prefix + own.stop] = (
                prefix + sum(parent.end - parent.start for parent in parents) + np.arange(length)
            )
        return visible if window is None else visible & (positions > positions[prefix:, None] - window)


def context_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    context: Context | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute attention as the context defines it or, without one, by PyTorch with the mask.

    Args:
        module: the layer's attention module.
        query: (rows, heads, T, head size).
        key: (rows, key heads, T, head size).
        value: (rows, key heads, T, head size).
        attention_mask: used without a context.
        dropout: of the attention weights, used without a context.
        scaling: factor of the scores.
        context: what the tokens attend to.
        sliding_window: number of most recent tokens that a token attends to, including itself; None means all.
        others: passed to PyTorch's attention.

    Returns:
        (rows, T, heads, head size), and None for the attention weights.
    """
    if context is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    attended = context.attend(module.layer_idx, query, key, value, scaling, sliding_window)
    return attended.transpose(1, 2).contiguous(), None


def _rope_depends_on_length(config: Any) -> bool:
    """Return whether rotations depend on the longest row of a pass; those of a prefix computed apart would differ."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = str(rope.get("rope_type") or rope.get("type"))
    return kind == "longrope" or "dynamic" in kind


def enable_packed_attention(decoder: Any) -> bool:
    """Make a decoder compute packed rows if its family is tested for it; return whether it does.

    Rows without a context still use PyTorch's attention.

    Args:
        decoder: transformers model without its output layer.
    """
    config = decoder.config.get_text_config()
    other_layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if (
        config.model_type not in PACKED_FAMILIES
        or not getattr(decoder, "_supports_attention_backend", False)
        or other_layers
        or _rope_depends_on_length(config)
        or getattr(config, "attn_logit_softcapping", None)
        or getattr(config, "attention_dropout", 0)
        or getattr(config, "_attn_implementation", None) != "sdpa"
    ):
        return False
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, context_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    decoder.set_attn_implementation(_NAME)
    return True


def skip_unpredicted_positions(decoder: Any) -> None:
    """Make the last layer of a decoder return only the positions that predict a target (:class:`PackedContext`).

    Its attention is still computed for all tokens, everything after the attention only for those positions.

    Args:
        decoder: packed-attention decoder; left as it is if its layers are not named like Llama's.
    """
    layer = list(getattr(decoder, "layers", None) or [None])[-1]
    if hasattr(layer, "input_layernorm") and hasattr(layer, "self_attn"):
        layer.register_forward_pre_hook(_select_residual, with_kwargs=True)
        layer.self_attn.register_forward_pre_hook(_restore_full_row, with_kwargs=True)
        layer.self_attn.register_forward_hook(_select_attended, with_kwargs=True)


def _select_residual(layer: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    context = kwargs.get("context")
    if not isinstance(context, PackedContext):
        return None
    hidden, *others = inputs
    context.full_hidden = layer.input_layernorm(hidden)
    return (hidden[:, context.predict_positions(hidden.device)], *others), kwargs


def _restore_full_row(attention: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    context = kwargs.get("context")
    return (inputs, kwargs | {"hidden_states": context.full_hidden}) if isinstance(context, PackedContext) else None


def _select_attended(attention: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> Any:
    context = kwargs.get("context")
    if not isinstance(context, PackedContext):
        return None
    return outputs[0][:, context.predict_positions(outputs[0].device)], *outputs[1:]


def _joined(outputs: Iterable[Tensor]) -> Tensor:
    """Join the outputs of segments, stored token by token, as the kernels write them and the next layer reads them."""
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1).transpose(1, 2)


def _mask(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return which of the preceding keys the last ``queries`` positions attend to, (queries, keys) bool."""
    rows = torch.arange(keys - queries, keys, device=device)[:, None]
    columns = torch.arange(keys, device=device)[None, :]
    visible = columns <= rows
    return visible if window is None else visible & (columns > rows - window)
