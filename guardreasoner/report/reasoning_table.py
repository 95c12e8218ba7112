"""Reasoning quality of models as a table for the terminal and HTML pages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.reasoning_quality import Quality
from guardreasoner.report.table import UNDEFINED, Cell, Table

if TYPE_CHECKING:
    from rich.console import Console

REASONING_NOTES = (
    "Reasoning quality, with 95 % intervals. By task: the reasoning's conclusion against the verdict, in percent of "
    "the verdicts on it.",
    "Other rates are in percent of all answers; steps, words and characters are means. "
    "Rules: docs/reasoning-quality.md",
)


def show_reasoning(console: "Console", models: Mapping[str, Quality]) -> None:
    """Print a table with one column per model, with intervals beside the values.

    Args:
        console: The terminal.
        models: Reasoning quality by model name.
    """
    from rich.markup import escape
    from rich.table import Table as RichTable

    table = RichTable(box=None, pad_edge=False, header_style="bold")
    table.add_column("reasoning")
    for name in models:
        table.add_column(escape(name), justify="right", overflow="fold")
    columns = [_rows(quality) for quality in models.values()]
    for name in _row_names(columns):
        cells = [_value_and_interval(column.get(name)) for column in columns]
        table.add_row(name, *(f"{value} [{low}, {high}]" if low else value for value, low, high in cells))
    console.print(table)
    for note in REASONING_NOTES:
        console.print(note, style="dim")


def reasoning_table(models: Mapping[str, Quality]) -> Table:
    """Return a table with one column per model name, with intervals below the values."""
    columns = [_rows(quality) for quality in models.values()]
    rows = []
    for name in _row_names(columns):
        cells = [_value_and_interval(column.get(name)) for column in columns]
        rows.append([Cell(name), *(Cell(value, f"{low}–{high}" if low else "") for value, low, high in cells)])
    return Table("Reasoning quality, by rules on the text", ("reasoning", *models), rows)


def _rows(quality: Quality) -> dict[str, Estimate]:
    by_task = {
        f"{task}: {outcome}": estimate
        for task, outcomes in quality.conclusions.items()
        for outcome, estimate in outcomes.items()
    }
    return {**by_task, **quality.rates, **quality.means}


def _row_names(columns: Sequence[Mapping[str, Estimate]]) -> Iterable[str]:
    return dict.fromkeys(name for column in columns for name in column)


def _value_and_interval(estimate: Estimate | None) -> tuple[str, str, str]:
    """Return a value and the ends of its interval; the ends are empty if the value is undefined."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return UNDEFINED, "", ""
    digits = 2 if estimate.high < 1000 else 0
    return f"{estimate.value:.{digits}f}", f"{estimate.low:.{digits}f}", f"{estimate.high:.{digits}f}"
