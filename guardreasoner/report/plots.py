"""Plots of what a run would be trained on, and of what mining found, for a page."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from guardreasoner.diagnosis import Balance, Histogram, Lengths
from guardreasoner.mining.findings import Findings
from guardreasoner.report.drawing import LIMIT, SERIES, drawing, svg
from guardreasoner.report.mining_plots import plots
from guardreasoner.report.plotting import legend, name_rows, short

_SOURCES = 20


def length_histogram(histogram: Histogram, limit: int) -> str:
    """Return how many examples have how many tokens, with the limit as a line."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        edges = histogram.edges
        widths = [after - before for before, after in pairwise(edges)]
        axes.bar(edges[:-1], histogram.counts, widths, align="edge", color=SERIES[0])
        axes.axvline(limit, color=LIMIT, linestyle="--", linewidth=1.5)
        above = axes.get_xaxis_transform()
        axes.text(limit, 1.02, f"limit {limit:,}", color=LIMIT, ha="right", transform=above)
        axes.set_xscale("log")
        axes.set_xlim(edges[0], edges[-1])
        _plain_ticks(axes.xaxis, edges[0], edges[-1])
        axes.set_xlabel("tokens, prompt and completion together (logarithmic)")
        axes.set_ylabel("examples")

    return svg(draw, 2.9, "histogram", "Examples by total length in tokens, with the limit")


def length_percentiles(lengths: Sequence[Lengths], limit: int) -> str:
    """Return the lengths of prompt and completions by percentile, as lines."""
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
        _plain_ticks(axes.yaxis, *axes.get_ylim())
        axes.set_ylabel("tokens (logarithmic)")
        legend(axes)

    return svg(draw, 3.2, "percentiles", "Lengths of prompt and completion by percentile")


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
                axes.barh(places, counts, 0.7, done, color=SERIES[number % len(SERIES)], label=short(label, 22))
                done = [before + count for before, count in zip(done, counts, strict=True)]
            name_rows(axes, [source for source, _ in bars], longest=22)
            # above the names of the sources, as the legend needs the room above the bars
            where = {"xycoords": ("figure fraction", "axes fraction"), "textcoords": "offset points"}
            title = axes.annotate(task, (0, 1), (4, 7), fontweight="bold", **where)
            title.set_in_layout(False)
            legend(axes)

    return svg(draw, height, "balance", "Training examples by label, source and task") if shown else ""


def mining_plots(found: Findings) -> dict[str, str]:
    """Return the plots of what mining found, by name."""
    return {plot.name: drawing(plot, plot.name) for plot in plots(found)}


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
