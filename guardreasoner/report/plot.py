"""Plots that are drawn with matplotlib for HTML pages (as SVG) and for TensorBoard (as images)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = ("#2f6db5", "#b87312", "#4c8f57", "#8c5aa8", "#b3485b", "#3f8a8a", "#7d7d3a", "#7a6a5f")
"""Default colours of the data series, in order."""

DrawFigure = Callable[[Any, Sequence[str]], None]
"""Draws on a matplotlib figure with the given series colours."""


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot, independent of where it is shown.

    Args:
        name: Identifier made of letters, digits, "-" and "_".
        title: What the plot shows.
        height: Height in inches at a width of five inches.
        draw: Draws the plot on a matplotlib figure with eight series colours. Text uses matplotlib's ``text.color``,
            which the caller may set.
    """

    name: str
    title: str
    height: float
    draw: DrawFigure


def draw_figures(plots: Sequence[Plot], colours: Sequence[str] = COLOURS, width: float = 6.0) -> dict[str, Any]:
    """Draw each plot on a new matplotlib figure.

    Args:
        plots: The plots to draw.
        colours: Colours of the data series.
        width: Width of every figure in inches; heights scale with it.

    Returns:
        The figures by plot name.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figures = {}
    with matplotlib.rc_context({"text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False}):
        for plot in plots:
            figures[plot.name] = figure = Figure(figsize=(width, plot.height * width / 5), layout="constrained")
            plot.draw(figure, colours)
            figure.suptitle(plot.title, fontsize=10)
    return figures


def label_rows(axes: Any, names: Sequence[str], max_length: int = 28) -> None:
    """Label the rows of horizontal bars, with the first row on top.

    Args:
        axes: The matplotlib axes.
        names: Labels of rows 0, 1, ….
        max_length: Longest label in characters; longer ones are shortened.
    """
    axes.set_yticks(range(len(names)), [shorten(name, max_length) for name in names])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # the rc setting no longer applies when matplotlib redraws ticks later
    axes.invert_yaxis()


def shorten(name: str, max_length: int = 28) -> str:
    """Shorten a name by replacing its middle with "…", and replace unprintable characters with "�"."""
    head = (max_length - 1) // 2
    short = name if len(name) <= max_length else f"{name[:head]}…{name[head + 1 - max_length :]}"
    return "".join(letter if letter.isprintable() else "�" for letter in short)


def add_legend(axes: Any) -> None:
    """Add a legend in one line above the plot."""
    spacing: Mapping[str, Any] = {"handlelength": 1, "handletextpad": 0.5, "columnspacing": 1, "borderpad": 0}
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, **spacing)
