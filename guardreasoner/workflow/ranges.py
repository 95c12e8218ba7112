"""Ranges of numbers in a config: declared in signatures, as in ``k: Count``, and checked when a config is parsed."""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Range:
    """The numbers that an argument may have.

    Args:
        expected: the numbers in words, such as "a number above 0".
        least: smallest number; None for none.
        above: number that it must be above; None for none.
        most: largest number; None for none.
        below: number that it must be below; None for none.
    """

    expected: str
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def allows(self, value: Any) -> bool:
        """Return whether a number is in the range; anything else, such as None, is not judged."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )


def ranges_of(hint: Any) -> Iterator[Range]:
    """Yield the ranges of a type hint such as ``Count | None`` or ``list[Share]``."""
    for one in hint_members(hint):
        yield from (extra for extra in getattr(one, "__metadata__", ()) if isinstance(extra, Range))


def hint_members(hint: Any) -> Iterator[Any]:
    """Yield the members of a union and the elements of a list; any other hint is itself."""
    if typing.get_origin(hint) is Annotated or not typing.get_args(hint):
        yield hint
    else:
        for inner in typing.get_args(hint):
            yield from hint_members(inner)


_LARGEST_SEED = 2**63 - 1
"""A generator of torch takes 64 bits; numpy, which no argument seeds directly, would take 32."""

Count = Annotated[int, Range("a whole number of at least 1", least=1)]
Several = Annotated[int, Range("a whole number of at least 2", least=2)]
CountOrZero = Annotated[int, Range("a whole number of at least 0", least=0)]
Seed = Annotated[int, Range(f"a whole number from 0 to {_LARGEST_SEED}", least=0, most=_LARGEST_SEED)]
Positive = Annotated[float, Range("a number above 0", above=0)]
NotNegative = Annotated[float, Range("a number of at least 0", least=0)]
ShareBelowOne = Annotated[float, Range("a number of at least 0 and below 1", least=0, below=1)]
Share = Annotated[float, Range("a number from 0 to 1", least=0, most=1)]
PositiveShare = Annotated[float, Range("a number above 0 and at most 1", above=0, most=1)]
