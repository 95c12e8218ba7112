"""Over-refusal and scores by slice as tables, notes and JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from guardreasoner.evaluation.comparison import Pairwise
from guardreasoner.evaluation.scoring.over_refusal import OverRefusal, rates
from guardreasoner.evaluation.scoring.slices import MIN_RECORDS, SliceScore
from guardreasoner.report.score_tables import estimate_as_json, flat
from guardreasoner.report.table import Cell, Table, estimate_cell

OVER_REFUSAL_NOTE = (
    "Over-refusal: share of the harmless look-alikes that are called positive (their false-positive rate; an unparsed "
    "answer counts as in F1), all benchmarks pooled."
)
SLICES_NOTE = (
    f"Slices: records of all benchmarks with the same value, pooled; (none): records without one. A slice of fewer "
    f"than {MIN_RECORDS} records has no figures. The verdicts are those that were written, not those at a threshold."
)

_NONE = "(none)"


def over_refusal_table(runs: Mapping[str, OverRefusal]) -> Table:
    """Return the over-refusal of runs, one row per benchmark, task and run."""
    keys = dict.fromkeys(row.benchmark for one in runs.values() for row in one.rows)
    rows = [
        [Cell(benchmark), Cell(task), Cell(name), Cell(str(row.n)), estimate_cell(rate), Cell(str(row.unparsed))]
        for benchmark in keys
        for name, one in runs.items()
        for row in one.rows
        if row.benchmark == benchmark
        for task, rate in rates(row).items()
    ]
    headings = ("benchmark", "task", "model", "n", "over-refusal", "unparsed")
    return Table("Over-refusal: harmless look-alikes", headings, rows, text_columns=3)


def over_refusal_differences(pairs: Sequence[Pairwise]) -> Table:
    """Return the differences in over-refusal of pairs of runs, over all look-alikes."""
    rows = [
        [Cell(pair.first), Cell(pair.second), Cell(task), estimate_cell(change, True)]
        for pair in pairs
        for task, change in pair.over_refusal.items()
    ]
    headings = ("first", "second", "task", "second − first")
    return Table("Over-refusal: differences in percentage points", headings, rows, text_columns=3)


def slice_tables(runs: Mapping[str, Sequence[SliceScore]]) -> list[Table]:
    """Return one table per column, with a row per value, task and run; tasks with ordered labels also by reading."""
    columns = dict.fromkeys(one.column for scores in runs.values() for one in scores)
    return [_slice_table(column, runs) for column in columns]


def over_refusal_as_json(found: OverRefusal) -> dict[str, Any]:
    """Return the over-refusal of one run by benchmark, then by task or reading."""
    return {
        row.benchmark: {
            task: {"n": row.n, **estimate_as_json("rate", rate), "unparsed": row.unparsed}
            for task, rate in rates(row).items()
        }
        for row in found.rows
    }


def slices_as_json(scores: Sequence[SliceScore]) -> list[dict[str, Any]]:
    """Return the scores of one run by slice; the figures of a small slice are null."""
    return [
        {
            **{"column": one.column, "value": one.value, "task": row.task, "n": row.n, "unparsed": row.unparsed},
            **estimate_as_json("f1", row.positive_f1 if one.is_large else None),
            **estimate_as_json("recall", row.recall if one.is_large else None),
            **estimate_as_json("false_positive_rate", row.false_positive_rate if one.is_large else None),
        }
        for one in scores
        for row in flat([one.score])
    ]


def _slice_table(column: str, runs: Mapping[str, Sequence[SliceScore]]) -> Table:
    by_value: dict[str | None, list[tuple[str, SliceScore]]] = {}
    for name, scores in runs.items():
        for one in scores:
            if one.column == column:
                by_value.setdefault(one.value, []).append((name, one))
    rows = []
    for value, found in sorted(by_value.items(), key=lambda item: item[0] is None):
        for task in dict.fromkeys(row.task for _, one in found for row in flat([one.score])):
            for name, one in found:
                for row in flat([one.score]):
                    if row.task == task:
                        figures = (row.positive_f1, row.recall, row.false_positive_rate)
                        cells = [estimate_cell(figure) if one.is_large else Cell("") for figure in figures]
                        names = [Cell(_NONE if value is None else value), Cell(task), Cell(name), Cell(str(row.n))]
                        rows.append([*names, *cells, Cell(str(row.unparsed))])
    headings = (column, "task", "model", "n", "F1", "recall", "FPR", "unparsed")
    return Table(f"Scores by {column}", headings, rows, text_columns=3)
