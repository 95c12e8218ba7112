"""The maths of R-SFT and HS-DPO (arXiv 2501.18492): pure functions on tensors, beside the equations they compute.

Shapes: N completion tokens, B sequences or pairs, H hidden size, V vocabulary. Log-probabilities are in nats.
"""

import math
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


def margin(chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor) -> Tensor:
    """Return (log π(y⁺) − log π_ref(y⁺)) − (log π(y⁻) − log π_ref(y⁻)).

    Args:
        chosen, rejected: (B,) log-probabilities of whole completions under the policy, in nats.
        reference_chosen, reference_rejected: (B,) the same under the reference.

    Returns:
        (B,) in nats.
    """
    return (chosen - reference_chosen) - (rejected - reference_rejected)


def dpo(margin: Tensor, beta: float) -> Tensor:
    """Return −log σ(β · margin), (B,) (Rafailov et al. 2023, equation 7)."""
    return -F.logsigmoid(beta * margin)


def ipo(margin: Tensor, beta: float) -> Tensor:
    """Return (margin − 1 / 2β)², (B,) (Azar et al. 2023, equation 17, on summed log-probabilities)."""
    return (margin - 1 / (2 * beta)) ** 2


def hinge(margin: Tensor, beta: float) -> Tensor:
    """Return max(0, 1 − β · margin), (B,) (SLiC, Zhao et al. 2023)."""
    return torch.relu(1 - beta * margin)


def adaptive_weight(excess_errors: Tensor, gamma: float) -> Tensor:
    """Return α = 1 + Norm(k_incorrect − k_correct, γ), Norm being min–max onto [−γ, γ] (paper, section 3.3).

    A function of the whole set, so it is computed once over all hard records, not a batch at a time. Where all are
    equally hard the released code divides by zero; here α is 1.

    Args:
        excess_errors: (N,) wrong minus right outputs per hard record.
        gamma: half-width of the range, 0 ≤ γ < 1, so that every weight stays positive.

    Raises:
        ValueError: gamma is outside [0, 1) or not a number.
    """
    if not (math.isfinite(gamma) and 0 <= gamma < 1):
        raise ValueError(f"gamma must be in [0, 1), got {gamma}")
    excess = excess_errors.double()
    if excess.numel() == 0 or excess.min() == excess.max():
        return torch.ones_like(excess)
    unit = (excess - excess.min()) / (excess.max() - excess.min())
    return 1 + gamma * (2 * unit - 1)


def hsdpo(preference: Tensor, weight: Tensor, chosen_nll: Tensor, sft_coef: float) -> Tensor:
    """Return α · preference + c · NLL(y⁺) per pair (paper, section 3.3; α weighs the preference term alone).

    Args:
        preference: (B,) preference loss, :func:`dpo` in the paper.
        weight: (B,) α.
        chosen_nll: (B,) token mean of the chosen completion's negative log-likelihood.
        sft_coef: c.

    Returns:
        (B,); the loss is its mean over the pairs of an optimizer step.
    """
    return weight * preference + sft_coef * chosen_nll
