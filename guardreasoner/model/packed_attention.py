"""Attention over a packed row (:mod:`guardreasoner.model.packing`), for transformers decoders that support it."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from guardreasoner.model.batch import Segment

_NAME = "guardreasoner"
"""What the attention is called in transformers' registry."""


KeyValues = tuple[Tensor, Tensor]
"""Keys and values of one layer: (rows, key heads, tokens, head size) each."""


class Context(Protocol):
    """What the tokens of a forward pass see; it is handed to the attention of every layer."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Return the attended values.

        Args:
            layer: number of the layer.
            query: (rows, heads, T, head size).
            key: (rows, key heads, T, head size), as ``value``.
            value: see ``key``.
            scaling: of the scores; None: one over the root of the head size.
            window: how many tokens back a token sees, itself counted; None: all.

        Returns:
            (rows, heads, T, head size).
        """


class SharedPrefix:
    """What many prompts begin with, computed once: its keys and values, which all that follows attends to.

    Args:
        layers: by layer number, one row each.
    """

    def __init__(self, layers: dict[int, KeyValues]) -> None:
        self.layers = layers

    @property
    def length(self) -> int:
        """Tokens."""
        return next(iter(self.layers.values()))[0].shape[2]

    def detached(self) -> "SharedPrefix":
        """Return a copy in which gradients gather, so that several backward passes need not go through the original."""
        return SharedPrefix(
            {n: (k.detach().requires_grad_(), v.detach().requires_grad_()) for n, (k, v) in self.layers.items()}
        )

    def surrogate_loss(self, copy: "SharedPrefix") -> Tensor:
        """Return a scalar whose gradient with respect to the weights is what gathered in a detached copy."""
        pairs = [pair for number, own in self.layers.items() for pair in zip(own, copy.layers[number], strict=True)]
        return torch.stack([(own * gathered.grad).sum() for own, gathered in pairs if gathered.grad is not None]).sum()


class PackedContext:
    """The segments of a packed row, with the masks that they need, made once for all layers.

    Args:
        segments: of the row.
        prefix: what every segment follows, which is not in the row.
        kv_out: takes the keys and values of each layer, where they are wanted.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        prefix: SharedPrefix | None = None,
        kv_out: dict[int, KeyValues] | None = None,
    ) -> None:
        self.segments = tuple(segments)
        self.prefix = prefix
        self.kv_out = kv_out
        self.full_hidden: Tensor | None = None
        """(1, T, H), what the attention of a layer sees that gives only what is read."""
        self._predict_positions: Tensor | None = None
        self._masks: dict[tuple[int, int, int | None], Tensor | None] = {}

    def predict_positions(self, device: torch.device) -> Tensor:
        """Return the places of the row that something is predicted from, in order: (places,) int64."""
        if self._predict_positions is None:
            places = [place for one in self.segments for place in range(one.end - one.num_predict, one.end)]
            self._predict_positions = torch.tensor(places, device=device)
        return self._predict_positions

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Attend segment by segment: (1, heads, T, head size)."""
        if self.kv_out is not None:
            self.kv_out[layer] = key, value
        begun = self.prefix.layers[layer] if self.prefix else (key[:, :, :0], value[:, :, :0])
        outputs = []
        for segment in self.segments:
            pieces = [self.segments[number] for number in segment.parents] + [segment]
            keys, values = (
                torch.cat([first, *(own[:, :, piece.start : piece.end] for piece in pieces)], dim=2)
                for first, own in zip(begun, (key, value), strict=True)
            )
            mask = self._mask(segment.end - segment.start, keys.shape[2], window, query.device)
            outputs.append(
                F.scaled_dot_product_attention(
                    query[:, :, segment.start : segment.end],
                    keys,
                    values,
                    attn_mask=mask,
                    is_causal=mask is None,
                    scale=scaling,
                    enable_gqa=query.shape[1] != key.shape[1],
                )
            )
        return torch.cat(outputs, dim=2)

    def _mask(self, own: int, keys: int, window: int | None, device: torch.device) -> Tensor | None:
        """Return which keys a segment's queries see: (queries, keys) bool; None where that is causal and no more."""
        wanted = (own, keys, window if window is not None and keys > window else None)
        if wanted not in self._masks:
            self._masks[wanted] = None if keys == own and wanted[2] is None else _mask(*wanted, device)
        return self._masks[wanted]


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
    """Attend as a context says; without one, it is left to PyTorch's attention under the mask.

    Args:
        module: the layer's attention.
        query: (rows, heads, T, head size).
        key: (rows, key heads, T, head size), as ``value``.
        value: see ``key``.
        attention_mask: where there is no context.
        dropout: on the weights, where there is no context; no model of today has any.
        scaling: of the scores.
        context: what the tokens see.
        sliding_window: how many tokens back a token sees, itself counted; None: all.
        others: what PyTorch's attention may want.

    Returns:
        (rows, T, heads, head size), and no weights.
    """
    if context is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    attended = context.attend(module.layer_idx, query, key, value, scaling, sliding_window)
    return attended.transpose(1, 2).contiguous(), None


def enable_packed_attention(decoder: Any) -> bool:
    """Make a decoder use this attention, if it can; return whether it can.

    It can when transformers lets its attention be chosen and each of its layers attends to all that stands before, or
    to a window of it, without capping or dropping scores. PyTorch's attention goes on to serve rows without segments.

    Args:
        decoder: a model of transformers without its output layer.
    """
    config = decoder.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    chosen = getattr(config, "_attn_implementation", None)
    if (
        not getattr(decoder, "_supports_attention_backend", False)
        or kinds
        or getattr(config, "attn_logit_softcapping", None)
        or getattr(config, "attention_dropout", 0)
        or chosen != "sdpa"
    ):
        return False
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, context_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    decoder.set_attn_implementation(_NAME)
    return True


def skip_unpredicted_positions(decoder: Any) -> None:
    """Make a decoder's last layer give only the places that a :class:`PackedContext` says are read.

    Its attention still sees all tokens; what follows the attention is computed for those places alone.

    Args:
        decoder: takes contexts; one whose layers are not named as Llama's are is left as it is.
    """
    layer = list(getattr(decoder, "layers", None) or [None])[-1]
    if hasattr(layer, "input_layernorm") and hasattr(layer, "self_attn"):
        layer.register_forward_pre_hook(_pass_on_what_is_read, with_kwargs=True)
        layer.self_attn.register_forward_pre_hook(_see_all, with_kwargs=True)
        layer.self_attn.register_forward_hook(_give_what_is_read, with_kwargs=True)


def _pass_on_what_is_read(layer: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    context = named.get("context")
    if not isinstance(context, PackedContext):
        return None
    hidden, *others = inputs
    context.full_hidden = layer.input_layernorm(hidden)
    return (hidden[:, context.predict_positions(hidden.device)], *others), named


def _see_all(attention: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    context = named.get("context")
    return (inputs, named | {"hidden_states": context.full_hidden}) if isinstance(context, PackedContext) else None


def _give_what_is_read(attention: Any, inputs: tuple[Any, ...], named: dict[str, Any], outputs: Any) -> Any:
    context = named.get("context")
    return (
        (outputs[0][:, context.predict_positions(outputs[0].device)], *outputs[1:])
        if isinstance(context, PackedContext)
        else None
    )


def _mask(own: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    queries = torch.arange(keys - own, keys, device=device)[:, None]
    places = torch.arange(keys, device=device)[None, :]
    seen = places <= queries
    return seen if window is None else seen & (places > queries - window)
