"""Statistics of the training data: length percentiles, a length histogram, and labels by source and task."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardreasoner.tasks import Task

_BINS = 40
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Lengths:
    """Lengths of one part of the examples, in tokens.

    Args:
        part: "prompt", "completion" (or "chosen", "rejected"), or "total": prompt and the longest completion.
        minimum: The shortest length.
        percentiles: Length by percentile, without interpolation.
        maximum: The longest length.
    """

    part: str
    minimum: int
    percentiles: Mapping[str, int]
    maximum: int

    @classmethod
    def of(cls, part: str, tokens: Sequence[int]) -> "Lengths":
        """Summarize the (examples,) lengths of at least one example."""
        values = np.asarray(tokens)
        percentiles = np.percentile(values, PERCENTILES, method="inverted_cdf")
        by_name = {str(percent): int(value) for percent, value in zip(PERCENTILES, percentiles, strict=True)}
        return cls(part, int(values.min()), by_name, int(values.max()))


@dataclass(frozen=True)
class Histogram:
    """Number of examples by length, in bins of equal width on a logarithmic scale.

    Args:
        edges: (bins + 1,) lengths in tokens.
        counts: (bins,) number of examples from one edge to below the next.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, tokens: Sequence[int], limit: int) -> "Histogram":
        """Count the (examples,) lengths in bins that include the limit."""
        values = np.asarray(tokens)
        edges = np.geomspace(max(1, min(values.min(), limit)) * 0.95, max(values.max(), limit) * 1.05, _BINS + 1)
        counts, _ = np.histogram(values, edges)
        return cls(tuple(round(float(edge), 2) for edge in edges), tuple(int(count) for count in counts))


@dataclass(frozen=True)
class Balance:
    """Training labels of one source for one task.

    Args:
        source: Source of the records.
        task: Name of the task.
        labels: Number of training examples by label.
        unlabelled: Number of training examples without a label for the task.
    """

    source: str
    task: str
    labels: Mapping[str, int]
    unlabelled: int


def label_balance(
    counts: Mapping[str, Mapping[str, Counter[str | None]]], tasks: Sequence[Task]
) -> tuple[Balance, ...]:
    """Return the labels by source and task.

    Args:
        counts: Number of examples by source, task and label; the label None stands for "no label".
        tasks: The tasks of the prompt format.
    """
    rows = []
    for source, by_task in counts.items():
        for task in tasks:
            by_label = by_task.get(task.name, Counter())
            labels = {label: by_label[label] for label in task.labels}
            # A custom source may give labels that the task does not define.
            labels |= {label: count for label, count in by_label.items() if label is not None}
            rows.append(Balance(source, task.name, labels, by_label[None]))
    return tuple(rows)


def rare_labels(rows: Sequence[Balance], tasks: Sequence[Task], share: float = 0.01) -> list[str]:
    """Return one line for each label that has less than ``share`` of its task's training labels."""
    lines = []
    for task in tasks:
        counts = Counter[str]()
        for row in rows:
            if row.task == task.name:
                counts.update(row.labels)
        total = sum(counts.values())
        lines += [
            f"{task.name} {label}: {counts[label]:,} of {total:,}"
            for label in task.labels
            if counts[label] < share * total
        ]
        if not total:
            lines.append(f"{task.name}: no labels")
    return lines
