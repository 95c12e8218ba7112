"""Log-probabilities of completions from hidden states, without ever holding all logits.

Shapes: N completion tokens, B sequences, H hidden size, V vocabulary. Log-probabilities are in nats.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def token_logps(hidden: Tensor, head: Tensor, targets: Tensor, chunk: int | None = None) -> Tensor:
    """Return log π(target | what stands before it) per token, without ever holding all N × V logits.

    Args:
        hidden: (N, H) last hidden state at the position before each target.
        head: (V, H) weight of the output layer.
        targets: (N,) int64 token ids.
        chunk: tokens whose logits exist at the same time; None: as many as make 2²⁷ logits.

    Returns:
        (N,) in float32, or float64 where hidden is.
    """
    logps: Tensor = _TokenLogps.apply(hidden, head, targets, chunk or max(1, _LOGITS // len(head)))
    return logps


_LOGITS = 2**27
"""Logits that exist at the same time: 0.5 GB in float32."""


class _TokenLogps(torch.autograd.Function):
    """log p_target with p = softmax(Wx); ∂/∂x = W_target − pW, and ∂/∂W = (e_target − p) x.

    Where the head is frozen (LoRA), the direction of x's gradient is computed going forward, and no probability is
    kept. Where it is trained, those of a single chunk are kept; those of several are computed again going backward.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, chunk: int) -> Tensor:
        trained, ctx.chunk = ctx.needs_input_grad[1], chunk
        logps, directions, kept = [], [], None
        for x, target in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = _log_softmax(x, head)
            logps.append(logits.gather(1, target[:, None])[:, 0])
            if trained and len(targets) <= chunk:
                kept = logits.exp_().to(head.dtype)
            elif not trained and ctx.needs_input_grad[0]:
                directions.append(head[target] - logits.exp_().to(head.dtype) @ head)
        if trained:
            ctx.save_for_backward(hidden, head, targets, kept)
        elif directions:
            ctx.save_for_backward(torch.cat(directions))
        return torch.cat(logps) if logps else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[1]:
            (direction,) = ctx.saved_tensors
            return direction * gradient[:, None].to(direction), None, None, None
        hidden, head, targets, kept = ctx.saved_tensors
        scale = gradient[:, None].to(hidden)
        to_head = torch.zeros_like(head).index_add_(0, targets, hidden * scale)
        to_hidden = []
        parts = (tensor.split(ctx.chunk) for tensor in (hidden, targets, scale))
        for x, target, weight in zip(*parts, strict=True):
            probabilities = kept if kept is not None else _log_softmax(x, head).exp_().to(head.dtype)
            to_hidden.append((head[target] - probabilities @ head) * weight)
            to_head.addmm_(probabilities.T, x * weight, alpha=-1)
        return torch.cat(to_hidden), to_head, None, None


def _log_softmax(hidden: Tensor, head: Tensor) -> Tensor:
    logits = hidden @ head.T
    return F.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def sequence_logps(token_logps: Tensor, sequence: Tensor, sequences: int) -> Tensor:
    """Return log π(y | x) = Σ_t log π(y_t | x, y_<t) per sequence.

    Args:
        token_logps: (N,).
        sequence: (N,) int64, which sequence each token belongs to.
        sequences: B.

    Returns:
        (B,) sums, in nats; 0 for a sequence without a token.
    """
    return token_logps.new_zeros(sequences).index_add(0, sequence, token_logps)


def sequence_nll(token_logps: Tensor, sequence: Tensor, sequences: int) -> Tensor:
    """Return the mean negative log-likelihood per token of each sequence: (B,), in nats per token."""
    tokens = sequence_logps(torch.ones_like(token_logps), sequence, sequences)
    return -sequence_logps(token_logps, sequence, sequences) / tokens
