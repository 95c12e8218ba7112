"""The losses of HS-DPO (arXiv 2501.18492) and of other preference objectives, beside the equations that they compute.

A preference objective is a function of the log-probabilities of P pairs: ``(chosen, rejected, beta) -> (P,)``, where
``chosen`` and ``rejected`` hold policy log-probabilities, completion lengths and, where it needs one, reference
log-probabilities. Mark one that needs none with :func:`reference_free`: no reference is then computed.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from guardreasoner.model.log_probs import CompletionLogps

Objective = Callable[[CompletionLogps, CompletionLogps, float], Tensor]
"""(chosen, rejected, beta) to the loss of each pair, (P,)."""

AnyObjective = TypeVar("AnyObjective", bound=Objective)


def reference_free(objective: AnyObjective) -> AnyObjective:
    """Mark an objective that uses no reference log-probabilities."""
    objective.reference_free = True  # type: ignore[attr-defined]
    return objective


def needs_reference(objective: Objective) -> bool:
    """Return whether an objective uses reference log-probabilities."""
    return not getattr(objective, "reference_free", False)


def margin(chosen: CompletionLogps, rejected: CompletionLogps) -> Tensor:
    """Return (log π(y⁺) − log π_ref(y⁺)) − (log π(y⁻) − log π_ref(y⁻)), (P,) in nats."""
    return chosen.log_ratio - rejected.log_ratio


def dpo(chosen: CompletionLogps, rejected: CompletionLogps, beta: float) -> Tensor:
    """Return −log σ(β · margin), (P,) (Rafailov et al. 2023, equation 7)."""
    return -F.logsigmoid(beta * margin(chosen, rejected))


def ipo(chosen: CompletionLogps, rejected: CompletionLogps, beta: float) -> Tensor:
    """Return (margin − 1 / 2β)², (P,) (Azar et al. 2023, equation 17, on summed log-probabilities)."""
    return (margin(chosen, rejected) - 1 / (2 * beta)) ** 2


def hinge(chosen: CompletionLogps, rejected: CompletionLogps, beta: float) -> Tensor:
    """Return max(0, 1 − β · margin), (P,) (SLiC, Zhao et al. 2023)."""
    return torch.relu(1 - beta * margin(chosen, rejected))


@reference_free
def simpo(chosen: CompletionLogps, rejected: CompletionLogps, beta: float, target_ratio: float = 0.5) -> Tensor:
    """Return −log σ(β · (log π(y⁺)/|y⁺| − log π(y⁻)/|y⁻|) − γ), (P,) (Meng et al. 2024, equation 6).

    Args:
        chosen: P chosen completions.
        rejected: P rejected completions.
        beta: scale of the reward; the paper uses 2 to 10.
        target_ratio: γ / β, the target reward margin in units of β; the paper recommends 0.5 and above.
    """
    return -F.logsigmoid(beta * (chosen.per_token - rejected.per_token - target_ratio))


@reference_free
def orpo(chosen: CompletionLogps, rejected: CompletionLogps, beta: float) -> Tensor:
    """Return β · (−log σ(log odds(y⁺) − log odds(y⁻))), (P,) (Hong et al. 2024, equations 6 and 7).

    odds(y) = p / (1 − p), where p is the geometric mean of the token probabilities. β is the paper's λ. The paper adds
    the NLL of the chosen completion with weight 1: set ``sft_coef: 1``.
    """
    return -beta * F.logsigmoid(_log_odds(chosen.per_token) - _log_odds(rejected.per_token))


def hsdpo(preference: Tensor, weight: Tensor, chosen_nll: Tensor, sft_coef: float) -> Tensor:
    """Return α · preference + c · NLL(y⁺) of each pair (paper, section 3.3); α weighs the preference term only.

    Args:
        preference: (P,) preference loss; :func:`dpo` in the paper.
        weight: (P,) α.
        chosen_nll: (P,) negative log-likelihood of the chosen completion, in nats per token.
        sft_coef: c.

    Returns:
        (P,); the loss is its mean over the pairs of an optimizer step.
    """
    return weight * preference + sft_coef * chosen_nll


def _log_odds(logp: Tensor) -> Tensor:
    """Return log p − log(1 − p), with p at most 1 − eps: a completion may be certain in float32."""
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    return logp - torch.log(-torch.expm1(logp))
