"""A table, for the terminal and for LaTeX; figures carry their interval below them or beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guardreasoner.evaluation.intervals import Estimate

if TYPE_CHECKING:
    from rich.console import Console

UNDEFINED = "–"

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
    """What stands in a row.

    Args:
        text: the figure, or words.
        below: its interval, or more words; may be empty.
    """

    text: str
    below: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings.

    Args:
        title: what it shows; may be empty.
        headings: of the columns; a line break parts two lines.
        rows: as many cells as headings, each.
        words: how many columns from the left hold words; the others hold figures, which stand to the right.
    """

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    words: int = 1

    def show(self, console: "Console") -> None:
        """Print to a terminal, intervals below their figures."""
        from rich.markup import escape
        from rich.table import Table as RichTable

        if self.title:
            console.print(f"\n[bold]{escape(self.title)}[/bold]", highlight=False)
        table = RichTable(box=None, pad_edge=False, header_style="bold")
        for place, heading in enumerate(self.headings):
            figure = place >= self.words
            table.add_column(
                escape(heading), justify="right" if figure else "left", overflow="fold", no_wrap=figure, vertical="top"
            )
        for row in self.rows:
            table.add_row(
                *(escape(cell.text) + (f"\n[dim]{escape(cell.below)}[/dim]" if cell.below else "") for cell in row)
            )
        console.print(table, highlight=False)

    def latex(self) -> str:
        """Return a ``tabular`` with the rules of the package booktabs, intervals beside their figures."""
        heads = [" ".join(heading.split()) for heading in self.headings]
        lines = [
            *([f"% {' '.join(self.title.split())}"] if self.title else []),
            rf"\begin{{tabular}}{{{'l' * self.words}{'r' * (len(heads) - self.words)}}}",
            r"\toprule",
            _latex_row([_escaped(head) for head in heads]),
            r"\midrule",
            *(_latex_row([_latex_cell(cell, place >= self.words) for place, cell in enumerate(r)]) for r in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"


def figure(one: Estimate | None, signed: bool = False) -> Cell:
    """Return a figure in percent or percentage points with its interval; "–" where it is undefined."""
    if one is None or one.value is None:
        return Cell(UNDEFINED)
    sign = "+" if signed else ""
    if one.low is None or one.high is None:
        return Cell(f"{one.value:{sign}.2f}")
    between = " to " if signed else "–"
    return Cell(f"{one.value:{sign}.2f}", f"{one.low:{sign}.1f}{between}{one.high:{sign}.1f}")


def latex_document(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Return tables one after the other, what they mean as comments before them."""
    head = ["% \\usepackage{booktabs}", *(f"% {note}" for note in notes)]
    return "\n".join([*head, "", *(table.latex() for table in tables)])


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell, is_figure: bool) -> str:
    parts = [_escaped(" ".join(part.split())) for part in (cell.text, cell.below) if part]
    if is_figure:
        parts = [part.replace("-", "$-$") for part in parts]  # a hyphen is no minus sign
    return "".join([*parts[:1], *(rf" {{\scriptsize ({interval})}}" for interval in parts[1:])])


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
