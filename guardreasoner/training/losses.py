"""The maths of R-SFT and HS-DPO (arXiv 2501.18492): pure functions on tensors, beside the equations they compute.

Shapes: N completion tokens, B sequences or pairs, H hidden size, V vocabulary. Log-probabilities are in nats.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
