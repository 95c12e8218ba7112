"""Tables for the terminal, HTML pages and LaTeX; numbers carry their interval below or beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.workflow.visible_text import visible_line

if TYPE_CHECKING:
    from rich.console import Console

UNDEFINED = "–"
"""Shown for a value that is undefined."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": r"\textendash{}",
    **{character: f"${character}$" for character in "<>"},
    **{character: f"\\{character}" for character in "&%$#_"},
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One table cell.

    Args:
        text: The value or text.
        below: A second line, such as the interval of the value; may be empty.
    """

    text: str
    below: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table.

    Args:
        title: What the table shows; may be empty.
        headings: Column headings; a newline splits a heading into two lines.
        rows: Rows with one cell per heading.
        text_columns: Number of leading columns that hold text; the others hold numbers and are right-aligned.
    """

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    text_columns: int = 1

    def show(self, console: "Console") -> None:
        """Print the table to a terminal, with intervals below their values."""
        from rich.markup import escape
        from rich.table import Table as RichTable

        if self.title:
            console.print(f"\n[bold]{escape(self.title)}[/bold]", highlight=False)
        table = RichTable(box=None, pad_edge=False, header_style="bold")
        for column, heading in enumerate(self.headings):
            numeric = column >= self.text_columns
            table.add_column(
                escape(heading),
                justify="right" if numeric else "left",
                overflow="fold",
                no_wrap=numeric,
                vertical="top",
            )
        for row in self.rows:
            table.add_row(
                *(escape(cell.text) + (f"\n[dim]{escape(cell.below)}[/dim]" if cell.below else "") for cell in row)
            )
        console.print(table, highlight=False)

    def latex(self) -> str:
        """Return a ``tabular`` that uses the package booktabs, with intervals beside their values."""
        heads = [" ".join(heading.split()) for heading in self.headings]
        lines = [
            *([_latex_comment(self.title)] if self.title else []),
            rf"\begin{{tabular}}{{{'l' * self.text_columns}{'r' * (len(heads) - self.text_columns)}}}",
            r"\toprule",
            _latex_row([_latex_escape(head) for head in heads]),
            r"\midrule",
            *(_latex_row([_latex_cell(cell, i >= self.text_columns) for i, cell in enumerate(r)]) for r in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"


def estimate_cell(estimate: Estimate | None, signed: bool = False) -> Cell:
    """Return a cell with a value and its interval; "–" if the value is undefined.

    Args:
        estimate: Value and interval in percent or percentage points.
        signed: Whether to show the sign of positive numbers, as for differences.
    """
    if estimate is None or estimate.value is None:
        return Cell(UNDEFINED)
    sign = "+" if signed else ""
    if estimate.low is None or estimate.high is None:
        return Cell(f"{estimate.value:{sign}.2f}")
    separator = " to " if signed else "–"
    return Cell(f"{estimate.value:{sign}.2f}", f"{estimate.low:{sign}.1f}{separator}{estimate.high:{sign}.1f}")


def latex_document(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return the tables one after another, preceded by the notes as comments."""
    head = ["% \\usepackage{booktabs}", *map(_latex_comment, notes)]
    return "\n".join([*head, "", *(table.latex() for table in tables)])


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell, numeric: bool) -> str:
    parts = [_latex_escape(" ".join(part.split())) for part in (cell.text, cell.below) if part]
    if numeric:
        parts = [part.replace("-", "$-$") for part in parts]  # LaTeX sets a bare "-" as a hyphen, not as a minus sign
    return "".join([*parts[:1], *(rf" {{\scriptsize ({interval})}}" for interval in parts[1:])])


def _latex_comment(text: str) -> str:
    return f"% {_named(' '.join(text.split()))}"


def _latex_escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _named(text))


def _named(text: str) -> str:
    """Return a text with the code points of control and direction characters in their place: "<U+001B>"."""
    return "".join(letter if visible_line(letter) == letter else f"<U+{ord(letter):04X}>" for letter in text)
