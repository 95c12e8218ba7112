"""Check the arguments of sources: Python code may give any value; a config's types are checked when it is parsed."""

from collections.abc import Collection
from typing import Any

from guardreasoner.errors import InputError


def is_chosen(value: Any, permitted: Collection[str]) -> bool:
    """Return whether a value is a list of one or more permitted texts, of any kind that is no text itself."""
    return (
        isinstance(value, Collection)
        and not isinstance(value, str | bytes)
        and len(value) > 0
        and all(isinstance(element, str) and element in permitted for element in value)
    )


def is_fraction(value: Any, with_one: bool = True) -> bool:
    """Return whether a value is a number from 0 to 1, or from 0 to below 1."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (0 <= value <= 1 if with_one else 0 <= value < 1)


def require_count(where: str, name: str, value: Any) -> None:
    """Raise ``InputError`` unless a value is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{where}: {name} must be a whole number of at least 1, got {value!r}")
