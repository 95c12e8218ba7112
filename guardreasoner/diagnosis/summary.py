"""Lengths and labels in numbers: percentiles, a histogram, counts by source and task."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardreasoner.tasks import Task

_BINS = 40
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Lengths:
    """How long one part of the examples is, in tokens.

    Args:
        part: prompt, completion (or chosen, rejected), or total: prompt and the longest completion.
        minimum: the shortest.
        percentiles: tokens by percentile; an example has that length, nothing is interpolated.
        maximum: the longest.
    """

    part: str
    minimum: int
    percentiles: Mapping[str, int]
    maximum: int

    @classmethod
    def of(cls, part: str, tokens: Sequence[int]) -> "Lengths":
        """Summarize (examples,) lengths; at least one."""
        values = np.asarray(tokens)
        found = np.percentile(values, PERCENTILES, method="inverted_cdf")
        by_name = {str(percent): int(value) for percent, value in zip(PERCENTILES, found, strict=True)}
        return cls(part, int(values.min()), by_name, int(values.max()))


@dataclass(frozen=True)
class Histogram:
    """Examples by length; the bins widen evenly on a logarithmic scale.

    Args:
        edges: (bins + 1,) tokens.
        counts: (bins,) examples from an edge to below the next.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, tokens: Sequence[int], limit: int) -> "Histogram":
        """Count (examples,) lengths; the limit lies within the bins."""
        values = np.asarray(tokens)
        edges = np.geomspace(max(1, min(values.min(), limit)) * 0.95, max(values.max(), limit) * 1.05, _BINS + 1)
        counts, _ = np.histogram(values, edges)
        return cls(tuple(round(float(edge), 2) for edge in edges), tuple(int(count) for count in counts))


@dataclass(frozen=True)
class Balance:
    """The training labels of one source for one task.

    Args:
        source: of the records.
        task: name of the task.
        labels: training examples by label.
        unlabelled: training examples without a label for it.
    """

    source: str
    task: str
    labels: Mapping[str, int]
    unlabelled: int


def balance(counts: Mapping[str, Mapping[str, Counter[str | None]]], tasks: Sequence[Task]) -> tuple[Balance, ...]:
    """Return the labels by source and task, in the order of both.

    Args:
        counts: examples by source, task and label; None: no label.
        tasks: what is decided.
    """
    found = []
    for source, by_task in counts.items():
        for task in tasks:
            here = by_task.get(task.name, Counter())
            labels = {label: here[label] for label in task.labels}
            # a source of one's own may give labels that the task does not have
            labels |= {label: n for label, n in here.items() if label is not None}
            found.append(Balance(source, task.name, labels, here[None]))
    return tuple(found)


def rare(rows: Sequence[Balance], tasks: Sequence[Task], share: float = 0.01) -> list[str]:
    """Return, one line each, the labels that less than ``share`` of a task's training labels are, or none at all."""
    lines = []
    for task in tasks:
        of = Counter[str]()
        for row in rows:
            if row.task == task.name:
                of.update(row.labels)
        total = sum(of.values())
        lines += [
            f"{task.name} {label}: {of[label]:,} of {total:,}" for label in task.labels if of[label] < share * total
        ]
        if not total:
            lines.append(f"{task.name}: no label at all")
    return lines
