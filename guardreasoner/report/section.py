"""Sections of the comparison page: sentences, plots, tables and examples under a heading."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from guardreasoner.report.flip_examples import FlipExamples
from guardreasoner.report.plot import Plot
from guardreasoner.report.svg import plot_svg
from guardreasoner.report.table import Table


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its content, shown in the order of these fields.

    Args:
        id: HTML id of the heading, unique in the page: letters, digits and "-".
        title: The heading.
        lines: Paragraphs.
        plots: Pairs of a title and an SVG.
        tables: Tables with titles that are unique in the page.
        text: Preformatted text, such as a tree.
        examples: Records whose correctness changed between two runs.
        subsections: Sections below this one.
        notes: Explanations of the numbers.
    """

    id: str
    title: str
    lines: tuple[str, ...] = ()
    plots: tuple[tuple[str, Markup], ...] = ()
    tables: tuple[Table, ...] = ()
    text: str = ""
    examples: tuple[FlipExamples, ...] = ()
    subsections: tuple["Section", ...] = ()
    notes: tuple[str, ...] = ()


def section_plots(section_id: str, plots: Sequence[Plot]) -> tuple[tuple[str, Markup], ...]:
    """Return plots as pairs of title and SVG, with ids that are unique in the page.

    Args:
        section_id: Id of the section that shows the plots, with a table of their numbers below them.
        plots: The plots to draw.
    """
    description = "The table below lists its numbers."
    return tuple(
        (plot.title, Markup(plot_svg(plot, f"{section_id}-{index}", description))) for index, plot in enumerate(plots)
    )
