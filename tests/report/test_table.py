"""Tables for the terminal and for LaTeX."""

from io import StringIO

from rich.console import Console

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.report.table import Cell, Table, estimate_cell, latex_document


def test_values_are_shown_with_their_interval() -> None:
    assert estimate_cell(Estimate(40, 0, 85.714)) == Cell("40.00", "0.0–85.7")
    assert estimate_cell(Estimate(-1.5, -3.25, 0.25), signed=True) == Cell("-1.50", "-3.2 to +0.2")
    assert estimate_cell(Estimate(2), signed=True) == Cell("+2.00")
    assert estimate_cell(None) == estimate_cell(Estimate(None)) == Cell("–")


def test_latex_is_escaped_and_has_minus_signs() -> None:
    cells = [
        Cell("a_b {50 %} [x] ~^\\ & #1 $"),
        estimate_cell(Estimate(-1.5, -3.25, 0.25), signed=True),
        Cell("<0.001"),
        Cell("–"),
    ]
    text = Table("50 %\nmore", ("name", "F1\ndifference", "p", "x"), [cells]).latex()
    assert text.splitlines() == [
        "% 50 % more",
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"name & F1 difference & p & x \\",
        r"\midrule",
        r"a\_b \{50 \%\} [x] \textasciitilde{}\textasciicircum{}\textbackslash{} \& \#1 \$ & "
        r"$-$1.50 {\scriptsize ($-$3.2 to +0.2)} & $<$0.001 & \textendash{} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert latex_document([Table("", ("x",), [])], ["all of it"]).startswith("% \\usepackage{booktabs}\n% all of it\n")


def test_data_are_not_parsed_as_rich_markup() -> None:
    console = Console(width=60, file=(out := StringIO()))
    Table("[b]t[/b]", ("[i]h[/i]",), [[Cell("[/red]", "[x]")]]).show(console)
    shown = out.getvalue()
    assert [line.strip() for line in shown.splitlines() if line.strip()] == ["[b]t[/b]", "[i]h[/i]", "[/red]", "[x]"]


def test_control_characters_are_named_in_latex() -> None:
    hostile = "a\x1b[2J\u202eb\n\\input{x}"
    table = Table(hostile, (hostile, "n"), [[Cell(hostile), Cell("1", hostile)]])
    document = latex_document([table], [hostile])
    assert not {"\x1b", "\u202e"} & set(document)
    assert "a$<$U+001B$>$[2J$<$U+202E$>$b \\textbackslash{}input\\{x\\}" in document
    assert [line for line in document.splitlines() if line.lstrip().startswith("\\input")] == []
