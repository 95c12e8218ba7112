"""Plots of scores of one or several models, for the comparison page and TensorBoard.

Everything is shown by position or text as well as by colour, so that readers who do not see colours lose nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.scoring import ModelScore
from guardreasoner.evaluation.scoring.labels import Confusion
from guardreasoner.report.plot import Plot, label_rows, shorten
from guardreasoner.report.probability_plots import probability_plots
from guardreasoner.tasks import Task

UNDEFINED_BAR = "undefined"
"""Text in place of a bar whose value is undefined, such as the F1 of a class that no record has."""

UNPARSED_COLUMN = "unparsed"
"""Heading of the confusion-matrix column of answers without a verdict."""

_MAX_CLASSES = 20
_MAX_OPACITY = 0.5  # dark text stays readable on the fill, and so does light text in the dark theme
_RIGHT, _WRONG = 0, 1

_Bar = tuple[str, Estimate | None, int]
"""Label, value, and index of the colour; an index of -1 marks a row that holds only its label."""


def score_plots(models: Sequence[ModelScore], tasks: Sequence[Task]) -> list[Plot]:
    """Return all score plots: F1, confusion matrices, hard records and, where there are any, probabilities.

    Args:
        models: Scores of models with distinct names; only the first eight have distinct colours.
        tasks: The tasks that were answered.
    """
    probabilities = probability_plots({model.model: model.probabilities for model in models if model.probabilities})
    return [*f1_plots(models, tasks), *confusion_plots(models, tasks), *hard_plots(models), *probabilities]


def f1_plots(models: Sequence[ModelScore], tasks: Sequence[Task]) -> list[Plot]:
    """Return F1 per class over all benchmarks, as bars with 95 % intervals.

    One model has one panel per task with one bar per class. Several models have one panel per class with one bar per
    model. Undefined values are labelled.

    Args:
        models: Scores of models with distinct names.
        tasks: The tasks that were answered.

    Returns:
        One plot named ``f1``, or none if no model has an F1.
    """
    panels: list[tuple[str, list[_Bar]]] = []
    for task in tasks:
        scores = [next((row.f1 for row in model.averages if row.task == task.name), None) for model in models]
        if not any(scores):
            continue
        by_class = {label: [f1[label] if f1 else None for f1 in scores] for label in task.labels[:_MAX_CLASSES]}
        if len(models) == 1:
            panels.append((task.name, [(label, f1, 0) for label, (f1,) in by_class.items()]))
        else:
            panels += [(f"{task.name}: {label}", _model_bars(models, f1s)) for label, f1s in by_class.items()]
        if hidden := len(task.labels) - len(by_class):
            title, bars = panels[-1]
            panels[-1] = title, [*bars, (f"{hidden} more classes are not shown", None, -1)]
    return [_bar_plot("f1", "F1 per class in percent, with 95 % intervals", panels)] if panels else []


def hard_plots(models: Sequence[ModelScore]) -> list[Plot]:
    """Return hard-sample accuracy as one bar per model with its 95 % interval.

    Args:
        models: Scores of models with distinct names; a model without outputs on hard records is undefined.

    Returns:
        One plot named ``hard``, or none if no model has outputs on hard records.
    """
    if not any(model.hard for model in models):
        return []
    bars = _model_bars(models, [model.hard.accuracy if model.hard else None for model in models])
    return [_bar_plot("hard", "Hard-sample accuracy in percent, with 95 % intervals", [("", bars)])]


def confusion_plots(models: Sequence[ModelScore], tasks: Sequence[Task]) -> list[Plot]:
    """Return confusion matrices with gold labels as rows and verdicts as columns; the last column counts unparsed ones.

    A cell shows its count and its share of the row. Its fill is the more opaque the larger the share is; right and
    wrong answers have different colours. With many labels, cells show only the share, or only the fill. A row without
    records shows "–".

    Args:
        models: Scores of models with distinct names; each has its own matrix.
        tasks: The tasks that were answered.

    Returns:
        One plot per task, named ``confusion-TASK``; none for a task without gold labels.
    """
    plots = []
    for task in tasks:
        matrices = [
            (model.model, matrix) for model in models for matrix in model.confusions if matrix.task == task.name
        ]
        if matrices:
            title = f"Answers by gold label: {shorten(task.name)}"
            plots.append(_matrix_plot(f"confusion-{task.name}", title, matrices))
    return plots


def _model_bars(models: Sequence[ModelScore], values: Sequence[Estimate | None]) -> list[_Bar]:
    if all(value is None or value.value is None for value in values):
        return [("every model", None, 0)]
    return [(model.model, value, number) for number, (model, value) in enumerate(zip(models, values, strict=True))]


def _bar_plot(name: str, title: str, panels: Sequence[tuple[str, Sequence[_Bar]]]) -> Plot:
    """Return panels of bars from 0 to 100 %, with each value printed to the right of its bar."""
    heights = [(0.36 if heading else 0.1) + 0.25 * len(bars) for heading, bars in panels]

    def draw(figure: Any, colours: Sequence[str]) -> None:
        from matplotlib import rcParams

        all_axes = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for (heading, bars), axes in zip(panels, all_axes, strict=True):
            widths = [(estimate.value or 0.0) if estimate else 0.0 for _, estimate, _ in bars]
            axes.barh(range(len(bars)), widths, 0.7, color=[colours[index % len(colours)] for _, _, index in bars])
            for row, (_, estimate, index) in enumerate(bars):
                if estimate and estimate.low is not None and estimate.high is not None:
                    ends = [estimate.low, estimate.high]
                    axes.plot(ends, [row, row], color=rcParams["text.color"], linewidth=1.2, marker="|")
                if estimate and estimate.value is not None:
                    coordinates = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
                    text = f"{estimate.value:.1f}"
                    axes.annotate(text, (1, row), (36, 0), ha="right", va="center_baseline", **coordinates)
                elif index >= 0:
                    axes.text(1, row, UNDEFINED_BAR, va="center", fontstyle="italic")
            label_rows(axes, [bar[0] for bar in bars])
            axes.set_ylim(len(bars) - 0.4, -0.6)
            axes.set_xlim(0, 100)
            if heading:
                axes.set_title(shorten(heading, 56), loc="left", fontweight="bold", fontsize="medium", pad=3)
        all_axes[-1].set_xlabel("%")

    return Plot(name, title, 0.7 + sum(heights), draw)


def _matrix_plot(name: str, title: str, matrices: Sequence[tuple[str, Confusion]]) -> Plot:
    labels = matrices[0][1].labels
    columns = 2 if len(labels) < 4 and len(matrices) > 1 else 1
    rows = -(-len(matrices) // columns)
    cell_height = min(0.5, 4.0 / len(labels)) if len(labels) > 6 else 0.5

    def draw(figure: Any, colours: Sequence[str]) -> None:
        grid = figure.subplots(rows, columns, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number >= len(matrices):
                axes.set_axis_off()
                continue
            model, matrix = matrices[number]
            _draw_matrix(axes, matrix, colours, row_labels=number % columns == 0, column_labels=number < columns)
            if len(matrices) > 1:
                axes.set_title(shorten(model, 36 // columns), loc="left", fontweight="bold", fontsize="medium")
        figure.supylabel("gold label", fontsize="medium")

    title_height = 0.35 if len(matrices) > 1 else 0
    return Plot(name, title, 1.4 + rows * (cell_height * len(labels) + title_height), draw)


def _draw_matrix(axes: Any, matrix: Confusion, colours: Sequence[str], row_labels: bool, column_labels: bool) -> None:
    from matplotlib import rcParams
    from matplotlib.patches import Rectangle

    labels = matrix.labels
    large_text = len(labels) < 4 and max(map(max, matrix.counts)) < 10_000
    for row, counts in enumerate(matrix.counts):
        for column, text, share in _cells(counts, len(labels)):
            colour = colours[_RIGHT if column == row else _WRONG]
            corner, opacity = (
                (column - 0.47, row - 0.47),
                _MAX_OPACITY * share**0.5,
            )  # the root makes small shares visible
            axes.add_patch(Rectangle(corner, 0.94, 0.94, color=colour, alpha=opacity, linewidth=0))
            axes.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, color=rcParams["axes.edgecolor"], linewidth=0.4))
            axes.text(column, row, text, ha="center", va="center", fontsize="medium" if large_text else "small")
    axes.set_xlim(-0.5, len(labels) + 0.5)
    label_rows(axes, labels if row_labels else [""] * len(labels), max_length=14)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.xaxis.tick_top()
    if column_labels:
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("answered")
    verdicts = [*(shorten(label, 14) for label in labels), UNPARSED_COLUMN]
    ticks = verdicts if column_labels else [""] * len(verdicts)
    axes.set_xticks(range(len(labels) + 1), ticks, rotation=30, ha="left", rotation_mode="anchor")
    for label in axes.get_xticklabels():
        label.set_parse_math(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _cells(counts: Sequence[int], labels: int) -> Iterator[tuple[int, str, float]]:
    """Yield column, text and share of each cell of a row."""
    total = sum(counts)
    for column, count in enumerate(counts):
        share = count / total if total else 0.0
        if labels > 14:
            text = ""
        elif not total:
            text = "–"
        elif labels > 6:
            text = f"{100 * share:.0f}"
        else:
            text = f"{count:,}\n{100 * share:.0f} %"
        yield column, text, share
