"""The table of what models' reasoning is like."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from guardreasoner.reasoning_quality import Estimate, Quality

if TYPE_CHECKING:
    from rich.console import Console

_NOTES = (
    "Reasoning, with 95 % intervals. By task: its conclusion against the answer, in percent of the verdicts on it.",
    "Then in percent of all answers. Steps, words and characters are means. The rules: docs/reasoning-quality.md",
)


def show_reasoning(console: "Console", models: Mapping[str, Quality]) -> None:
    """Print a column a model.

    Args:
        console: where to.
        models: by the name to show.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("reasoning")
    for name in models:
        table.add_column(escape(name), justify="right", overflow="fold")
    columns = [_rows(quality) for quality in models.values()]
    for row in dict.fromkeys(row for column in columns for row in column):
        table.add_row(row, *(_cell(column.get(row)) for column in columns))
    console.print(table)
    for note in _NOTES:
        console.print(note, style="dim")


def _rows(quality: Quality) -> dict[str, Estimate]:
    by_task = {
        f"{task}: {outcome}": estimate
        for task, outcomes in quality.conclusions.items()
        for outcome, estimate in outcomes.items()
    }
    return {**by_task, **quality.rates, **quality.means}


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    digits = 2 if estimate.high < 1000 else 0
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
