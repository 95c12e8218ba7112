"""Plots of probabilities: ROC curves and reliability diagrams, with the kinds of score side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from guardreasoner.evaluation.scoring.probabilities import POOLED, ProbabilityScore
from guardreasoner.report.plot import Plot, shorten

_HEIGHT = 2.3
_LEGEND_LINE = 0.22
_MARKERS = "os^Dv<>p"
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":")


def probability_plots(probabilities: Mapping[str, Sequence[ProbabilityScore]]) -> list[Plot]:
    """Return a ROC plot and a reliability diagram per task, over the records of all benchmarks.

    Each has one panel per kind of score, with one line per model; lines differ in dashes and markers too.

    Args:
        probabilities: rows of each model by its name.

    Returns:
        Plots named ``roc-TASK`` and ``reliability-TASK``.
    """
    plots = []
    for task in dict.fromkeys(row.task for rows in probabilities.values() for row in rows):
        by_kind: dict[str, dict[str, ProbabilityScore]] = {}
        for model, rows in probabilities.items():
            for row in overall_rows(rows):
                if row.task == task:
                    by_kind.setdefault(row.kind, {})[model] = row
        if any(row.roc for models in by_kind.values() for row in models.values()):
            plots.append(
                _panels(f"roc-{task}", f"ROC curves: {shorten(task)}", by_kind, list(probabilities), _draw_roc)
            )
        title = f"Reliability: {shorten(task)}"
        plots.append(_panels(f"reliability-{task}", title, by_kind, list(probabilities), _draw_reliability))
    return plots


def overall_rows(rows: Sequence[ProbabilityScore]) -> list[ProbabilityScore]:
    """Return the rows over all benchmarks: the pooled ones, or those of the only benchmark."""
    pooled = {(row.task, row.kind) for row in rows if row.benchmark == POOLED}
    return [row for row in rows if row.benchmark == POOLED or (row.task, row.kind) not in pooled]


def _panels(
    name: str, title: str, by_kind: Mapping[str, Mapping[str, ProbabilityScore]], models: list[str], line: Any
) -> Plot:
    legend = _LEGEND_LINE * len(models) if len(models) > 1 else 0

    def draw(figure: Any, colours: Sequence[str]) -> None:
        from matplotlib import rcParams

        all_axes = figure.subplots(1, len(by_kind), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (kind, rows) in zip(all_axes, by_kind.items(), strict=True):
            axes.set_title(kind, loc="left", fontweight="bold", fontsize="medium", pad=3)
            axes.set_xlim(-2, 102)
            axes.set_ylim(-2, 102)
            axes.set_aspect("equal")
            axes.plot([0, 100], [0, 100], color=rcParams["axes.edgecolor"], linewidth=0.8)
            for model, row in rows.items():
                number = models.index(model)
                style = {"color": colours[number % len(colours)], "linestyle": _DASHES[number % len(_DASHES)]}
                line(axes, row, {**style, "linewidth": 1.4}, _MARKERS[number % len(_MARKERS)])
        x_label, y_label = _LABELS[line]
        all_axes[0].set_ylabel(y_label)
        figure.supxlabel(x_label, fontsize="medium")
        if legend:
            _add_legend(figure, models, colours)

    return Plot(name, title, _HEIGHT + legend, draw)


def _draw_roc(axes: Any, row: ProbabilityScore, style: Mapping[str, Any], marker: str) -> None:
    if row.roc:
        axes.plot(*zip(*row.roc, strict=True), **style)


def _draw_reliability(axes: Any, row: ProbabilityScore, style: Mapping[str, Any], marker: str) -> None:
    scores = [100 * point.mean_score for point in row.reliability]
    shares = [100 * point.positive_share for point in row.reliability]
    axes.plot(scores, shares, **style, marker=marker, markersize=4)


_LABELS = {
    _draw_roc: ("false-positive rate in %", "recall in %"),
    _draw_reliability: ("mean score of a bin in %", "positive in %"),
}


def _add_legend(figure: Any, models: Sequence[str], colours: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [],
            color=colours[number % len(colours)],
            linestyle=_DASHES[number % len(_DASHES)],
            label=shorten(model, 48),
        )
        for number, model in enumerate(models)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper left", frameon=False, fontsize="small")
