"""Shares of cases, with Wilson's 95 % interval (https://doi.org/10.1080/01621459.1927.10502953)."""

from dataclasses import dataclass
from math import sqrt

_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Share:
    """A number of cases out of a total.

    Args:
        count: the cases.
        total: what they are counted among.
    """

    count: int
    total: int

    @property
    def percent(self) -> float | None:
        """The share in percent; None of nothing."""
        return 100 * self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the share, in percent; None of nothing."""
        return wilson(self.count / self.total, self.total) if self.total else None


def wilson(share: float, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval in percent.

    Args:
        share: the mean of values from 0 to 1. Where they are not all 0 or 1, the interval is wider than it had to be.
        total: how many there are, at least 1.
    """
    squared = _Z**2
    centre = share + squared / (2 * total)
    half = _Z * sqrt(share * (1 - share) / total + squared / (4 * total**2))
    low, high = ((centre + sign * half) / (1 + squared / total) for sign in (-1, 1))
    return 100 * max(0.0, low), 100 * min(1.0, high)
