"""Attention over a packed row (:mod:`guardreasoner.packing`), for decoders of transformers that let it be chosen."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guardreasoner.tokens import Segment

_NAME = "guardreasoner"
"""What the attention is called in transformers' registry."""


class Tree:
    """The segments of a row, with the masks that they need, made once for all layers.

    Args:
        segments: of a packed row.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self._masks: dict[tuple[int, int, int | None], Tensor | None] = {}

    def mask(self, segment: Segment, window: int | None, device: torch.device) -> Tensor | None:
        """Return which keys a segment's queries see: (queries, keys) bool; None where that is causal and no more."""
        above = sum(self.segments[number].end - self.segments[number].start for number in segment.above)
        own = segment.end - segment.start
        key = (own, above, window if window is not None and own + above > window else None)
        if key not in self._masks:
            self._masks[key] = None if key[1] == 0 and key[2] is None else _mask(*key, device)
        return self._masks[key]


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    tree: Tree | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend segment by segment; a row without segments is left to PyTorch's attention.

    Args:
        module: the layer.
        query: (1, heads, T, head size).
        key: (1, key heads, T, head size), as ``value``.
        value: see ``key``.
        attention_mask: of a row without segments.
        dropout: on the weights.
        scaling: of the scores.
        tree: the segments.
        sliding_window: how many tokens back a token sees, itself counted; None: all.
        others: what PyTorch's attention may want.

    Returns:
        (1, T, heads, head size), and no weights.
    """
    if tree is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    outputs = []
    for segment in tree.segments:
        pieces = [tree.segments[number] for number in segment.above] + [segment]
        keys, values = (torch.cat([x[:, :, p.start : p.end] for p in pieces], dim=2) for x in (key, value))
        mask = tree.mask(segment, sliding_window, query.device)
        outputs.append(
            F.scaled_dot_product_attention(
                query[:, :, segment.start : segment.end],
                keys,
                values,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def attend_by_segments(decoder: Any) -> bool:
    """Make a decoder use this attention, if it can; return whether it can.

    It can when transformers lets its attention be chosen and each of its layers attends to all that stands before, or
    to a window of it, without capping scores. PyTorch's attention goes on to serve rows without segments.

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
        or chosen != "sdpa"
    ):
        return False
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, tree_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    decoder.set_attn_implementation(_NAME)
    return True


def _mask(own: int, above: int, window: int | None, device: torch.device) -> Tensor:
    queries = torch.arange(above, above + own, device=device)[:, None]
    keys = torch.arange(above + own, device=device)[None, :]
    seen = keys <= queries
    return seen if window is None else seen & (keys > queries - window)
