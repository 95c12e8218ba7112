"""The adaptive weight of a hard record (arXiv 2501.18492, section 3.3), in numpy so that mining loads no torch."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def adaptive_weight(excess_errors: Sequence[int] | NDArray[np.integer], gamma: float) -> NDArray[np.float64]:
    """Compute α = 1 + Norm(k_incorrect − k_correct, γ), where Norm is min–max scaling onto [−γ, γ].

    α depends on the whole set, so it is computed once over all hard records and not per batch. The released code
    divides by zero when all records are equally hard; here α is then 1.

    Args:
        excess_errors: (N,) wrong minus right outputs of each hard record.
        gamma: half-width of the range; 0 ≤ γ < 1, so that every weight is positive.

    Returns:
        (N,) weights, dimensionless.

    Raises:
        ValueError: gamma is outside [0, 1) or not a number.
    """
    if not (math.isfinite(gamma) and 0 <= gamma < 1):
        raise ValueError(f"gamma must be in [0, 1), got {gamma}")
    excess = np.asarray(excess_errors, dtype=np.float64)
    if excess.size == 0 or excess.min() == excess.max():
        return np.ones_like(excess)
    unit = (excess - excess.min()) / (excess.max() - excess.min())
    return 1 + gamma * (2 * unit - 1)
