"""What a page of runs is made of: sections with sentences, plots, tables and examples."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from guardreasoner.report.drawing import drawing
from guardreasoner.report.flipped import FlippedRecords
from guardreasoner.report.plotting import Plot
from guardreasoner.report.tables import Table


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it, in this order.

    Args:
        id: of the heading, where no other has it: letters, digits and "-".
        title: the heading.
        lines: sentences.
        plots: a title and a drawing each.
        tables: their titles are different in all of a page.
        text: lines as they are, such as a tree.
        examples: records that flipped.
        parts: sections below this one.
        notes: what the figures mean.
    """

    id: str
    title: str
    lines: tuple[str, ...] = ()
    plots: tuple[tuple[str, Markup], ...] = ()
    tables: tuple[Table, ...] = ()
    text: str = ""
    examples: tuple[FlippedRecords, ...] = ()
    parts: tuple["Section", ...] = ()
    notes: tuple[str, ...] = ()


def drawings(section: str, plots: Sequence[Plot]) -> tuple[tuple[str, Markup], ...]:
    """Return plots with their titles, each under a name of its own.

    Args:
        section: id of the section that they stand in.
        plots: with a table of their numbers below them.
    """
    said = "Its numbers stand in a table below it."
    return tuple((plot.title, Markup(drawing(plot, f"{section}-{place}", said))) for place, plot in enumerate(plots))
