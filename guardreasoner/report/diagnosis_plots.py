"""Plots of a data diagnosis as SVG: token lengths and label balance."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from guardreasoner.diagnosis import Balance, Histogram, Lengths
from guardreasoner.report.plot import add_legend, label_rows, shorten
from guardreasoner.report.svg import LIMIT, SERIES, draw_svg

_MAX_SOURCES = 20


def length_histogram_svg(histogram: Histogram, limit: int) -> str:
    """Return a histogram of total lengths in tokens, with the length limit as a line."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        edges = histogram.edges
        widths = [right - left for left, right in pairwise(edges)]
        axes.bar(edges[:-1], histogram.counts, widths, align="edge", color=SERIES[0])
        axes.axvline(limit, color=LIMIT, linestyle="--", linewidth=1.5)
        above = axes.get_xaxis_transform()
        axes.text(limit, 1.02, f"limit {limit:,}", color=LIMIT, ha="right", transform=above)
        axes.set_xscale("log")
        axes.set_xlim(edges[0], edges[-1])
        _set_log_ticks(axes.xaxis, edges[0], edges[-1])
        axes.set_xlabel("tokens, prompt and completion together (logarithmic)")
        axes.set_ylabel("examples")

    return draw_svg(draw, 2.9, "histogram", "Examples by total length in tokens, with the limit")


def length_percentiles_svg(lengths: Sequence[Lengths], limit: int) -> str:
    """Return the percentiles of prompt and completion lengths as lines, with the length limit."""
    markers = "osD^"

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        names = ["min", *(f"{name} %" for name in lengths[0].percentiles), "max"]
        for number, row in enumerate(lengths):
            values = [row.minimum, *row.percentiles.values(), row.maximum]
            axes.plot(names, values, color=SERIES[number], marker=markers[number % 4], label=row.part)
        axes.axhline(limit, color=LIMIT, linestyle="--", linewidth=1.5)
        axes.text(0, limit, f"limit {limit:,}", color=LIMIT, va="bottom")
        axes.set_yscale("log")
        _set_log_ticks(axes.yaxis, *axes.get_ylim())
        axes.set_ylabel("tokens (logarithmic)")
        add_legend(axes)

    return draw_svg(draw, 3.2, "percentiles", "Lengths of prompt and completion by percentile")


def label_balance_svg(rows: Sequence[Balance]) -> str:
    """Return the training labels as stacked bars, one panel per task and one bar per source.

    Only the largest sources have a bar of their own; the last bar sums up the others.

    Returns:
        The SVG; empty if there are no labels.
    """
    tasks = list(dict.fromkeys(row.task for row in rows))
    all_bars = {task: _bars([row for row in rows if row.task == task and any(row.labels.values())]) for task in tasks}
    panels = {task: bars for task, bars in all_bars.items() if bars}
    heights = [0.9 + 0.28 * len(bars) for bars in panels.values()]

    def draw(figure: Any) -> None:
        grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
        for (task, bars), axes in zip(panels.items(), grid[:, 0], strict=True):
            labels = list(dict.fromkeys(label for _, counts in bars for label in counts))
            offsets = [0] * len(bars)
            for number, label in enumerate(labels):
                counts = [by_label.get(label, 0) for _, by_label in bars]
                colour = SERIES[number % len(SERIES)]
                axes.barh(range(len(bars)), counts, 0.7, offsets, color=colour, label=shorten(label, 22))
                offsets = [offset + count for offset, count in zip(offsets, counts, strict=True)]
            label_rows(axes, [source for source, _ in bars], max_length=22)
            # The title stands above the row labels because the legend needs the room above the bars.
            coordinates = {"xycoords": ("figure fraction", "axes fraction"), "textcoords": "offset points"}
            title = axes.annotate(task, (0, 1), (4, 7), fontweight="bold", **coordinates)
            title.set_in_layout(False)
            add_legend(axes)

    return draw_svg(draw, sum(heights), "balance", "Training examples by label, source and task") if panels else ""


def _bars(rows: Sequence[Balance]) -> list[tuple[str, dict[str, int]]]:
    """Return source and label counts of the largest sources, then the sum of the others."""
    ordered = sorted(rows, key=lambda row: -sum(row.labels.values()))
    largest = {row.source for row in ordered[:_MAX_SOURCES]}
    bars = [(row.source, dict(row.labels)) for row in rows if row.source in largest]
    rest: dict[str, int] = {}
    for row in ordered[_MAX_SOURCES:]:
        for label, count in row.labels.items():
            rest[label] = rest.get(label, 0) + count
    return [*bars, (f"{len(ordered) - _MAX_SOURCES} other sources", rest)] if rest else bars


def _set_log_ticks(axis: Any, low: float, high: float) -> None:
    """Label a logarithmic axis at 1, 2, 5, 10, … in plain numbers instead of powers of ten."""
    ticks = [digit * 10**power for power in range(8) for digit in (1, 2, 5)]
    axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_minor_formatter(lambda value, _: "")
