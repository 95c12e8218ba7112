"""The arithmetic of a comparison: runs in turn, ratios with what is wanted of them, losses that must be equal."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from guardreasoner.errors import InputError

TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
"""Largest relative difference of two losses that count as equal."""


@dataclass(frozen=True)
class Target:
    """What is wanted of a ratio.

    Args:
        what: "speed" or "memory".
        against: "best" or "default".
        bound: speed at least, memory at most.
    """

    what: str
    against: str
    bound: float

    def met(self, value: float) -> bool:
        """Return whether a ratio is good enough."""
        return value >= self.bound if self.what == "speed" else value <= self.bound


def ratio(
    what: str, against: str, ours: Sequence[float], theirs: Sequence[float], targets: Sequence[Target]
) -> dict[str, Any]:
    """Return median, least and largest of ours / theirs over runs in turn, with what is wanted of the median.

    Args:
        what: "speed" or "memory".
        against: which rival.
        ours: of each of our runs.
        theirs: of the rival's, as many.
        targets: what is wanted; None is said of a ratio that is not among them.
    """
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    wanted = next((t for t in targets if (t.what, t.against) == (what, against)), None)
    return {
        "what": what,
        "against": against,
        "median": median(each),
        "min": min(each),
        "max": max(each),
        "target": wanted.bound if wanted else None,
        "met": wanted.met(median(each)) if wanted else None,
    }


def in_turn(
    choices: Sequence[Any],
    repeats: int,
    run: Callable[[Any], dict[str, Any]],
    line: Callable[[str, dict[str, Any]], str],
) -> dict[str, list[dict[str, Any]]]:
    """Run settings one after the other, several times, every other time backwards; return the runs by name.

    Args:
        choices: what to run, each with a ``name``.
        repeats: how often.
        run: takes a choice and returns what was measured.
        line: takes a name and what was measured, and returns what is shown.
    """
    runs: dict[str, list[dict[str, Any]]] = {choice.name: [] for choice in choices}
    for number in range(repeats):
        for choice in choices if number % 2 == 0 else reversed(choices):
            runs[choice.name].append(run(choice))
            print(line(f"{number + 1}. {choice.name}", runs[choice.name][-1]), flush=True)
    return runs


def difference(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the largest relative difference of two series; infinite where a value is no finite number."""
    if not all(map(math.isfinite, (*left, *right))):
        return math.inf
    return max(abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0 for a, b in zip(left, right, strict=True))


def require_equal(name: str, differs: float, dtype: str) -> None:
    """Go on where two series of losses are equal.

    Args:
        name: what was compared.
        differs: their largest relative difference.
        dtype: "fp32" or "bf16".

    Raises:
        InputError: they are not, so that no speed could be compared.
    """
    if differs > TOLERANCE[dtype]:
        raise InputError(f"{name}: the losses differ by {differs:.1e}, relatively")
