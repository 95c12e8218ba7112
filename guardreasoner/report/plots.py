"""Plots as inline SVG: text stays text, colours are the page's variables, so that they follow it into the dark."""

import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from io import StringIO
from itertools import pairwise
from typing import Any

from guardreasoner.diagnosis import Balance, Histogram, Lengths
from guardreasoner.mining.findings import Findings
from guardreasoner.mining.plots import plots
from guardreasoner.plotting import Plot, legend, name_rows, short

# Colours that matplotlib writes down and nobody else uses; each stands for a variable of the page.
_INK, _FAINT, _LIMIT = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0000{number:02x}" for number in range(4, 12))
_VARIABLES = {_INK: "--ink", _FAINT: "--faint", _LIMIT: "--limit"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_SERIES)
}
_WIDTH = 5.0
"""Inches, so narrow that the text is readable when the plot is as wide as a phone."""

_SOURCES = 20
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "guardreasoner",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.parse_math": False,  # a dollar sign in a name is one
}


def length_histogram(histogram: Histogram, limit: int) -> str:
    """Return how many examples have how many tokens, with the limit as a line."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        edges = histogram.edges
        widths = [after - before for before, after in pairwise(edges)]
        axes.bar(edges[:-1], histogram.counts, widths, align="edge", color=_SERIES[0])
        axes.axvline(limit, color=_LIMIT, linestyle="--", linewidth=1.5)
        above = axes.get_xaxis_transform()
        axes.text(limit, 1.02, f"limit {limit:,}", color=_LIMIT, ha="right", transform=above)
        axes.set_xscale("log")
        axes.set_xlim(edges[0], edges[-1])
        _plain_ticks(axes.xaxis, edges[0], edges[-1])
        axes.set_xlabel("tokens, prompt and completion together (logarithmic)")
        axes.set_ylabel("examples")

    return _svg(draw, 2.9, "histogram", "Examples by total length in tokens, with the limit")


def length_percentiles(lengths: Sequence[Lengths], limit: int) -> str:
    """Return the lengths of prompt and completions by percentile, as lines."""
    markers = "osD^"

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        names = ["min", *(f"{name} %" for name in lengths[0].percentiles), "max"]
        for number, row in enumerate(lengths):
            values = [row.minimum, *row.percentiles.values(), row.maximum]
            axes.plot(names, values, color=_SERIES[number], marker=markers[number % 4], label=row.part)
        axes.axhline(limit, color=_LIMIT, linestyle="--", linewidth=1.5)
        axes.text(0, limit, f"limit {limit:,}", color=_LIMIT, va="bottom")
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis, *axes.get_ylim())
        axes.set_ylabel("tokens (logarithmic)")
        legend(axes)

    return _svg(draw, 3.2, "percentiles", "Lengths of prompt and completion by percentile")


def label_balance(rows: Sequence[Balance]) -> str:
    """Return the training labels as one stacked bar a source, task below task; small sources are put together."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    shown = {task: _largest([row for row in rows if row.task == task and any(row.labels.values())]) for task in tasks}
    shown = {task: bars for task, bars in shown.items() if bars}
    height = sum(0.9 + 0.28 * len(bars) for bars in shown.values())

    def draw(figure: Any) -> None:
        ratios = [0.9 + 0.28 * len(bars) for bars in shown.values()]
        grid = figure.subplots(len(shown), squeeze=False, height_ratios=ratios)
        for (task, bars), axes in zip(shown.items(), grid[:, 0], strict=True):
            labels = list(dict.fromkeys(label for _, counts in bars for label in counts))
            places, done = range(len(bars)), [0] * len(bars)
            for number, label in enumerate(labels):
                counts = [of.get(label, 0) for _, of in bars]
                axes.barh(places, counts, 0.7, done, color=_SERIES[number % len(_SERIES)], label=short(label, 22))
                done = [before + count for before, count in zip(done, counts, strict=True)]
            name_rows(axes, [source for source, _ in bars], longest=22)
            # above the names of the sources, as the legend needs the room above the bars
            where = {"xycoords": ("figure fraction", "axes fraction"), "textcoords": "offset points"}
            title = axes.annotate(task, (0, 1), (4, 7), fontweight="bold", **where)
            title.set_in_layout(False)
            legend(axes)

    return _svg(draw, height, "balance", "Training examples by label, source and task") if shown else ""


def mining_plots(found: Findings) -> dict[str, str]:
    """Return the plots of what mining found, by name."""
    return {plot.name: drawing(plot, plot.name) for plot in plots(found)}


def drawing(plot: Plot, name: str, description: str = "") -> str:
    """Return a plot in the page's colours.

    Args:
        plot: what is drawn.
        name: of the plot in its page, where no other has it: letters, digits, "-" and "_".
        description: what a reader who does not see it should know, such as where its numbers stand.
    """

    def draw(figure: Any) -> None:
        plot.draw(figure, _SERIES)

    return _svg(draw, plot.height, name, plot.title, description)


def _largest(rows: Sequence[Balance]) -> list[tuple[str, dict[str, int]]]:
    ordered = sorted(rows, key=lambda row: -sum(row.labels.values()))
    kept = {row.source for row in ordered[:_SOURCES]}
    bars = [(row.source, dict(row.labels)) for row in rows if row.source in kept]
    rest: dict[str, int] = {}
    for row in ordered[_SOURCES:]:
        for label, count in row.labels.items():
            rest[label] = rest.get(label, 0) + count
    return [*bars, (f"{len(ordered) - _SOURCES} other sources", rest)] if rest else bars


def _plain_ticks(axis: Any, low: float, high: float) -> None:
    """Put 1, 2, 5, 10, … on a logarithmic axis, as numbers that everybody reads."""
    ticks = [digit * 10**power for power in range(8) for digit in (1, 2, 5)]
    axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_minor_formatter(lambda value, _: "")


def _svg(draw: Callable[[Any], None], height: float, name: str, title: str, description: str = "") -> str:
    """Draw, and make the result part of a page: no outer references, no fixed size, ids of its own, a title."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        out = StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    body = text[text.index(">") + 1 :].replace("xlink:href", "href")
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(href="#|url\(#)', rf"\1{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    said = f'aria-label="{escape(title)}"' + (f' aria-describedby="{name}-desc"' if description else "")
    more = f'<desc id="{name}-desc">{escape(description)}</desc>' if description else ""
    return f'<svg class="plot" viewBox="{box[1]}" role="img" {said}><title>{escape(title)}</title>{more}{body}'
