"""Scores by slice: the records that have the same value in a column, pooled over benchmarks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.errors import InputError
from guardreasoner.evaluation.intervals import RESAMPLES
from guardreasoner.evaluation.scoring import TaskScore
from guardreasoner.evaluation.scoring.labels import Mode
from guardreasoner.evaluation.scoring.pools import RunLabels, score_pools
from guardreasoner.records import Record
from guardreasoner.sources.slices import slice_columns, slice_value
from guardreasoner.tasks import Task

MIN_RECORDS = 10
"""Fewest records of a slice with a gold label for a task whose scores are shown."""

_MAX_SLICES = 200


@dataclass(frozen=True, slots=True)
class SliceScore:
    """Scores of one run on one task of one slice.

    Args:
        column: the column.
        value: its value; None for the records that have none.
        score: the scores; if ``score.n`` is below ``MIN_RECORDS``, its figures mean nothing and are not shown.
    """

    column: str
    value: str | None
    score: TaskScore

    @property
    def is_large(self) -> bool:
        """Whether there are enough records for a figure."""
        return self.score.n >= MIN_RECORDS


def score_slices(
    runs: Mapping[str, RunLabels],
    records: Sequence[Record],
    columns: Sequence[str],
    tasks: Sequence[Task],
    mode: Mode,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[SliceScore]]:
    """Return the scores by slice of runs on the same records.

    Args:
        runs: labels of each run.
        records: the records.
        columns: columns to split by: "language", "source", "turns", or a further column of the records.
        tasks: tasks to score.
        mode: how unparsed answers count.
        resamples: number of bootstrap resamples within a slice; 0 for no intervals.
        seed: seed of the bootstrap.

    Raises:
        InputError: no record has a value in a column, or it has too many values.
    """
    scores: dict[str, list[SliceScore]] = {name: [] for name in runs}
    for column in dict.fromkeys(columns):
        groups = _groups(records, column)
        pools = {f"{column}={value}": ids for value, ids in groups.items()}
        found = score_pools(list(runs.values()), pools, tasks, mode, resamples, seed)
        for name, by_pool in zip(runs, found, strict=True):
            scores[name] += [
                SliceScore(column, value, row) for value, pool in zip(groups, by_pool, strict=True) for row in pool.rows
            ]
    return scores


def _groups(records: Sequence[Record], column: str) -> dict[str | None, set[str]]:
    """Return the ids of the records by their value: numbers in order, else most records first; None last."""
    groups: dict[str | None, set[str]] = {}
    for record in records:
        groups.setdefault(slice_value(record, column), set()).add(record.id)
    if set(groups) == {None}:
        known = ", ".join(slice_columns(records))
        hint = "--detect_language detects it" if column == "language" else None
        raise InputError(f"--by: no record has a value in the column {column!r}; there are {known}", hint)
    if len(groups) > _MAX_SLICES:
        raise InputError(f"--by: the column {column!r} has {len(groups):,} values, at most {_MAX_SLICES} can be shown")
    numeric = all(value is None or (value.isascii() and value.isdecimal()) for value in groups)

    def order(value: str | None) -> tuple[bool, int, str]:
        digits = (value or "").lstrip("0")  # compared by length, then as text: int() refuses thousands of digits
        return value is None, len(digits) if numeric else -len(groups[value]), digits if numeric else value or ""

    return {value: groups[value] for value in sorted(groups, key=order)}
