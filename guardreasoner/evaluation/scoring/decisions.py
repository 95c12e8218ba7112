"""Which labels of a task count as positive, and the probability of the positive side."""

from collections.abc import Mapping
from typing import Literal

from guardreasoner.tasks import Task

OrderedRule = Literal["strict", "loose"]
"""How the middle labels of an ordered task count: ``strict`` as positive, ``loose`` as negative."""

_MOST_PARSED = 0.5


def positive_labels(task: Task, rule: OrderedRule = "strict") -> tuple[str, ...]:
    """Return the labels that count as positive.

    The labels of an ordered task run from the harmless end to the harmful one: ``strict`` takes all but the first,
    ``loose`` the last. Any other task has one positive label.
    """
    if task.ordered:
        return task.labels[1:] if rule == "strict" else task.labels[-1:]
    return (task.positive,)


def positive_probability(
    probabilities: Mapping[str, float] | None, task: Task, rule: OrderedRule = "strict"
) -> float | None:
    """Return the probability that the label of a record counts as positive; None if the record is unparsed.

    A record is unparsed without probabilities, and with shares of votes if at least half of its outputs were unparsed:
    an output that cannot be read is no vote for the harmless side.

    Args:
        probabilities: probability by label of the task; the rest to 1 is the share of unparsed outputs.
        task: the task.
        rule: how the middle labels of an ordered task count.
    """
    if not probabilities or sum(probabilities.values()) <= _MOST_PARSED:
        return None
    return min(1.0, sum(probabilities.get(label, 0.0) for label in positive_labels(task, rule)))
