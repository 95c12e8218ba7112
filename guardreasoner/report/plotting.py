"""Plots that are drawn twice: in a page, in its colours, and in TensorBoard."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = ("#2f6db5", "#b87312", "#4c8f57", "#8c5aa8", "#b3485b", "#3f8a8a", "#7d7d3a", "#7a6a5f")
"""Of series, in order, where nobody gives others."""

Draw = Callable[[Any, Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot.

    Args:
        name: a word, of letters, digits, "-" and "_".
        title: what it shows.
        height: in inches, for a width of five.
        draw: takes a matplotlib figure and the colours of its series, eight of them; text is in matplotlib's
            ``text.color``, which whoever draws may set.
    """

    name: str
    title: str
    height: float
    draw: Draw


def render_figures(plots: Sequence[Plot], colours: Sequence[str] = COLOURS, width: float = 6.0) -> dict[str, Any]:
    """Return a matplotlib figure by name for each plot; the widths of all are the same, in inches."""
    import matplotlib
    from matplotlib.figure import Figure

    made = {}
    with matplotlib.rc_context({"text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False}):
        for plot in plots:
            made[plot.name] = figure = Figure(figsize=(width, plot.height * width / 5), layout="constrained")
            plot.draw(figure, colours)
            figure.suptitle(plot.title, fontsize=10)
    return made


def name_rows(axes: Any, names: Sequence[str], longest: int = 28) -> None:
    """Give the rows of horizontal bars their names, the first one on top.

    Args:
        axes: of matplotlib.
        names: of the rows 0, 1, ….
        longest: letters that there is room for.
    """
    axes.set_yticks(range(len(names)), [short(name, longest) for name in names])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a dollar sign in a name is one, also where ticks are drawn later
    axes.invert_yaxis()


def short(name: str, longest: int = 28) -> str:
    """Return a name with "…" for its middle where it is longer, and "�" for what cannot be printed."""
    head = (longest - 1) // 2
    cut = name if len(name) <= longest else f"{name[:head]}…{name[head + 1 - longest :]}"
    return "".join(letter if letter.isprintable() else "�" for letter in cut)


def legend(axes: Any) -> None:
    """Show the names of the series above the plot."""
    spacing: Mapping[str, Any] = {"handlelength": 1, "handletextpad": 0.5, "columnspacing": 1, "borderpad": 0}
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, **spacing)
