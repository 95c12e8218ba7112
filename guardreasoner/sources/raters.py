"""How far the people who labelled a record agree."""

from collections import Counter
from collections.abc import Hashable, Sequence

from guardreasoner.errors import InputError
from guardreasoner.sources.arguments import is_fraction


def rater_agreement(votes: Sequence[Hashable]) -> float:
    """Return the share of raters who gave the most frequent vote, rounded to two digits; 1 for a single rater.

    Args:
        votes: one vote for each rater; at least one.
    """
    return round(max(Counter(votes).values()) / len(votes), 2)


def agreement_column(share: float) -> dict[str, str]:
    """Return the column of a record that holds the agreement, for scores by slice: ``{"agreement": "0.67"}``."""
    return {"agreement": f"{share:.2f}"}


def require_share(where: str, name: str, value: float) -> float:
    """Return the value; raise ``InputError`` unless it is from 0 to 1."""
    if not is_fraction(value):
        raise InputError(f"{where}: {name} must be from 0 to 1, got {value!r}")
    return value
