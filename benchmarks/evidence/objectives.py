"""Preference terms that leave out what an arm removes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from guardreasoner.model.log_probs import CompletionLogps
from guardreasoner.training.losses import margin, reference_free


@reference_free
def no_preference(chosen: CompletionLogps, rejected: CompletionLogps, beta: float) -> Tensor:
    """Return 0 for each pair, (P,): what remains of HS-DPO is SFT on the chosen outputs."""
    return 0.0 * chosen.policy


def random_direction(chosen: CompletionLogps, rejected: CompletionLogps, beta: float) -> Tensor:
    """Return −log σ(± β · margin), (P,): DPO that does not know which of the two outputs is right.

    The sign of a pair follows from a digit of its reference log-probabilities: as often + as −, unrelated to which
    output is right, and fixed if they are stored (``Precomputed``). The parity of the lengths would always be even for
    two outputs of equal length.
    """
    gap = margin(chosen, rejected)
    assert chosen.reference is not None  # margin() needs both
    assert rejected.reference is not None
    sign = 1 - 2 * (torch.floor(1000 * (chosen.reference + rejected.reference)) % 2)
    return -F.logsigmoid(beta * sign * gap)
