"""Arithmetic of a comparison: alternating runs, ratios with targets, and equality of losses."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from guardreasoner.errors import InputError

TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
"""Largest relative difference at which two losses count as equal."""


@dataclass(frozen=True)
class Target:
    """Target of a ratio.

    Args:
        what: "speed", "memory", or "share" of the limit.
        against: Settings of the other side, "best" or "default"; "limit" for a share.
        bound: Lower bound of speed or share, upper bound of memory.
    """

    what: str
    against: str
    bound: float

    def met(self, value: float) -> bool:
        """Return whether a ratio meets the target."""
        return value <= self.bound if self.what == "memory" else value >= self.bound


def ratio(
    what: str, against: str, ours: Sequence[float], theirs: Sequence[float], targets: Sequence[Target]
) -> dict[str, Any]:
    """Return median and range of ours / theirs over alternating runs, and whether the median meets its target.

    Args:
        what: "speed", "memory", or "share" of the limit.
        against: Settings of the other side, "best" or "default"; "limit" for a share.
        ours: Measurement of each of our runs.
        theirs: Measurement of each run of the other side, one per run of ours; 1 for a share.
        targets: All targets; ``target`` and ``met`` are None for a ratio without one.
    """
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    target = next((t for t in targets if (t.what, t.against) == (what, against)), None)
    return {
        "what": what,
        "against": against,
        "median": median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "target": target.bound if target else None,
        "met": target.met(median(ratios)) if target else None,
    }


def speed_and_memory(
    against: str,
    ours: Sequence[dict[str, Any]],
    theirs: Sequence[dict[str, Any]],
    speed: str,
    targets: Sequence[Target] = (),
) -> list[dict[str, Any]]:
    """Return the ratios of speed and of memory over alternating runs.

    Args:
        against: Settings of the other side.
        ours: Measurements of each of our runs.
        theirs: Measurements of each run of the other side.
        speed: Name of the measurement of speed.
        targets: All targets.
    """
    return [
        ratio(what, against, [run[name] for run in ours], [run[name] for run in theirs], targets)
        for what, name in (("speed", speed), ("memory", "memory_mb"))
    ]


def in_turn(
    candidates: Sequence[Any],
    repeats: int,
    run: Callable[[Any], dict[str, Any]],
    line: Callable[[str, dict[str, Any]], str],
) -> dict[str, list[dict[str, Any]]]:
    """Run all candidates several times, in reverse order every other time; return the measurements by name.

    Args:
        candidates: What to run, each with a ``name``.
        repeats: Number of runs of each candidate.
        run: Takes a candidate and returns its measurements.
        line: Takes a name and measurements, and returns the line to print.
    """
    runs: dict[str, list[dict[str, Any]]] = {candidate.name: [] for candidate in candidates}
    for number in range(repeats):
        for candidate in candidates if number % 2 == 0 else reversed(candidates):
            runs[candidate.name].append(run(candidate))
            print(line(f"{number + 1}. {candidate.name}", runs[candidate.name][-1]), flush=True)
    return runs


def difference(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the largest relative difference of two series; infinite if a value is NaN or infinite."""
    if not all(map(math.isfinite, (*left, *right))):
        return math.inf
    return max(abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0 for a, b in zip(left, right, strict=True))


def require_equal(name: str, differs: float, dtype: str) -> None:
    """Check that two series of losses are equal.

    Args:
        name: Name of the comparison, for the message.
        differs: Largest relative difference of the losses.
        dtype: "fp32" or "bf16".

    Raises:
        InputError: The losses differ, so speeds cannot be compared.
    """
    if differs > TOLERANCE[dtype]:
        raise InputError(f"{name}: the losses differ by {differs:.1e} (relative)")
