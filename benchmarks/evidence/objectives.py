"""Preference terms that leave out what an arm removes."""

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

    The sign of a pair is that of the parity of its tokens: fixed, and unrelated to which output is right.
    """
    sign = 1 - 2 * ((chosen.lengths + rejected.lengths) % 2)
    return -F.logsigmoid(beta * sign * margin(chosen, rejected))
