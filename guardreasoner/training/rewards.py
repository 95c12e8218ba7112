"""Rewards of sampled outputs: how well their verdicts agree with the gold labels of the record."""

from collections.abc import Callable

from guardreasoner.mining.grading import Grades

Reward = Callable[[Grades], float]
"""Takes the grades of an output, for each task with a gold label: right, wrong, or None without a verdict."""


def share_right(grades: Grades) -> float:
    """Return the share of the labelled tasks that the output answers right, from 0 to 1.

    An output that gives no verdict for one of them is unparsed and gets 0, however right it is on the others.
    """
    return 0.0 if is_unparsed(grades) else sum(grades.values()) / len(grades)  # type: ignore[arg-type]


def all_right(grades: Grades) -> float:
    """Return 1 if the output answers all labelled tasks right, as mining counts it, else 0."""
    return float(all(grades.values()))


def is_unparsed(grades: Grades) -> bool:
    """Return whether an output has no verdict for a task with a gold label."""
    return None in grades.values()
