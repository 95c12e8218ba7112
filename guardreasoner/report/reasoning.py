"""What models' reasoning is like, as a table for the terminal and for a page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.reasoning_quality import Quality
from guardreasoner.report.tables import UNDEFINED, Cell, Table

if TYPE_CHECKING:
    from rich.console import Console

REASONING_NOTES = (
    "Reasoning, with 95 % intervals. By task: its conclusion against the answer, in percent of the verdicts on it.",
    "Then in percent of all answers. Steps, words and characters are means. The rules: docs/reasoning-quality.md",
)


def show_reasoning(console: "Console", models: Mapping[str, Quality]) -> None:
    """Print a column a model, intervals beside their figures.

    Args:
        console: where to.
        models: by the name to show.
    """
    from rich.markup import escape
    from rich.table import Table as RichTable

    table = RichTable(box=None, pad_edge=False, header_style="bold")
    table.add_column("reasoning")
    for name in models:
        table.add_column(escape(name), justify="right", overflow="fold")
    columns = [_rows(quality) for quality in models.values()]
    for row in _names(columns):
        cells = [_figures(column.get(row)) for column in columns]
        table.add_row(row, *(f"{value} [{low}, {high}]" if low else value for value, low, high in cells))
    console.print(table)
    for note in REASONING_NOTES:
        console.print(note, style="dim")


def reasoning_table(models: Mapping[str, Quality]) -> Table:
    """Return the same as a table, by the name to show, intervals below their figures."""
    columns = [_rows(quality) for quality in models.values()]
    rows = []
    for row in _names(columns):
        cells = [_figures(column.get(row)) for column in columns]
        rows.append([Cell(row), *(Cell(value, f"{low}–{high}" if low else "") for value, low, high in cells)])
    return Table("Reasoning, by rules on its text", ("reasoning", *models), rows)


def _rows(quality: Quality) -> dict[str, Estimate]:
    by_task = {
        f"{task}: {outcome}": estimate
        for task, outcomes in quality.conclusions.items()
        for outcome, estimate in outcomes.items()
    }
    return {**by_task, **quality.rates, **quality.means}


def _names(columns: Sequence[Mapping[str, Estimate]]) -> Iterable[str]:
    return dict.fromkeys(row for column in columns for row in column)


def _figures(estimate: Estimate | None) -> tuple[str, str, str]:
    """Return a figure and the ends of its interval; the ends are empty where there is no figure."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return UNDEFINED, "", ""
    digits = 2 if estimate.high < 1000 else 0
    return f"{estimate.value:.{digits}f}", f"{estimate.low:.{digits}f}", f"{estimate.high:.{digits}f}"
