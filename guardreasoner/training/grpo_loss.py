"""The loss of GRPO (DeepSeekMath, arXiv 2402.03300) and the normalizations of its successors, beside the equations.

Shapes: E prompts with k outputs each, B outputs, N output tokens. The loss of an optimizer step is Σ w · ℓ over the
tokens of all its outputs: ℓ is the loss of a token, w the weight that a :data:`Normalization` gives it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_EPSILON = 1e-4
"""Added to the standard deviation of a group, as TRL does; the paper adds nothing."""


def advantages(rewards: Tensor, scale: bool = True) -> Tensor:
    """Return how much better each output is than its group: (r − mean) / standard deviation, (E, k).

    A group whose rewards are all equal has advantages of exactly 0. The standard deviation has k − 1 in its
    denominator.

    Args:
        rewards: (E, k), k of at least 2.
        scale: divide by the standard deviation (DeepSeekMath, section 4.1.2; TRL's default). Dr. GRPO
            (arXiv 2503.20783) does not, since that gives the easiest and the hardest prompts the largest weight.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if scale:
        centred = centred / (rewards.std(dim=1, keepdim=True) + _EPSILON)
    return centred.masked_fill(without_signal(rewards)[:, None], 0.0)


def without_signal(rewards: Tensor) -> Tensor:
    """Return which groups have equal rewards, (E,) bool: none of their outputs is better than another."""
    return rewards.amax(dim=1) == rewards.amin(dim=1)


def clipped_loss(logps: Tensor, sampled_logps: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Return −min(ρ · A, clip(ρ, 1 − low, 1 + high) · A) of each token, (N,) (DeepSeekMath, equation 3).

    Args:
        logps: (N,) log-probabilities of the policy, in nats.
        sampled_logps: (N,) those of the policy that the outputs were sampled from, without gradient; ρ is the ratio.
        advantage: (N,) A of the token's output.
        low: how far below 1 the ratio still counts.
        high: how far above 1 the ratio still counts; above ``low`` in DAPO (arXiv 2503.14476).
    """
    ratio = torch.exp(logps - sampled_logps)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def is_clipped(logps: Tensor, sampled_logps: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Return which tokens have no gradient because their ratio has left its range, (N,) bool; arguments as above."""
    ratio = torch.exp(logps - sampled_logps)
    return ((ratio < 1 - low) & (advantage < 0)) | ((ratio > 1 + high) & (advantage > 0))


def kl_estimate(logps: Tensor, reference: Tensor) -> Tensor:
    """Return π_ref/π − log(π_ref/π) − 1 of each token, (N,), ≥ 0 (DeepSeekMath, equation 4).

    Its mean over tokens sampled from π is the divergence KL(π ‖ π_ref), in nats per token.

    Args:
        logps: (N,) log-probabilities of the policy, in nats.
        reference: (N,) those of the reference.
    """
    gap = reference - logps
    return torch.expm1(gap) - gap


def unbiased_kl_penalty(kl: Tensor, logps: Tensor, sampled_logps: Tensor) -> Tensor:
    """Return ρ · KL of each token, (N,) (DeepSeek-V3.2, arXiv 2512.02556), TRL's default.

    Its gradient with respect to log π is ρ · log(π/π_ref), that of the divergence, on average over sampled tokens; that
    of the estimate alone is 1 − π_ref/π.

    Args:
        kl: (N,) values of :func:`kl_estimate`.
        logps: (N,) log-probabilities of the policy, in nats.
        sampled_logps: (N,) those of the policy that the outputs were sampled from.
    """
    return torch.exp(logps - sampled_logps) * kl


@dataclass(frozen=True)
class StepSize:
    """What one optimizer step holds, over all processes, groups without signal included.

    Args:
        tokens: tokens of all outputs.
        outputs: number of outputs.
        max_new_tokens: most tokens that an output could have.
    """

    tokens: int
    outputs: int
    max_new_tokens: int


Normalization = Callable[[Tensor, StepSize], Tensor]
"""Takes the lengths of outputs in tokens, (B,) int64, and the size of the step; returns the weight of a token, (B,)."""


def token_mean(lengths: Tensor, size: StepSize) -> Tensor:
    """Return 1 / tokens of the step: each token weighs the same (DAPO, arXiv 2503.14476, equation 8)."""
    return torch.full(lengths.shape, 1 / size.tokens, device=lengths.device)


def sequence_mean(lengths: Tensor, size: StepSize) -> Tensor:
    """Return 1 / (outputs · own length): each output weighs the same (DeepSeekMath, equation 3).

    A wrong output has less loss per token the longer it is.
    """
    return 1 / (size.outputs * lengths)


def constant(lengths: Tensor, size: StepSize) -> Tensor:
    """Return 1 / (outputs · most new tokens), which depends on no length (Dr. GRPO, arXiv 2503.20783, appendix)."""
    return torch.full(lengths.shape, 1 / (size.outputs * size.max_new_tokens), device=lengths.device)
