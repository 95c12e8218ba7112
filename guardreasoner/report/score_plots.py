"""Plots of scores, several models side by side: the same ones for a page and for TensorBoard.

All is said twice, by place and by text, so that nothing hangs on a colour.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.scoring import ModelScore
from guardreasoner.evaluation.scoring.labels import Confusion
from guardreasoner.report.plotting import Plot, name_rows, short
from guardreasoner.tasks import Task

UNDEFINED = "undefined"
"""Stands where a figure has no value, as the F1 of a class that no record has. Its bar is missing, not 0."""

UNPARSED = "unparsed"
"""Heads the column of answers without a verdict."""

_CLASSES = 20
_DARKEST = 0.5  # opacity of a cell that holds its whole row: text in ink is readable on it, by day and by night
_RIGHT, _WRONG = 0, 1

_Bar = tuple[str, Estimate | None, int]
"""What a row of bars is called, how long it is and the place of its colour."""


def score_plots(models: Sequence[ModelScore], tasks: Sequence[Task]) -> list[Plot]:
    """Return all plots of scores: :func:`f1_plots`, :func:`confusion_plots` and :func:`hard_plots`.

    Args:
        models: with different names; the first eight have colours of their own.
        tasks: what was answered.
    """
    return [*f1_plots(models, tasks), *confusion_plots(models, tasks), *hard_plots(models)]


def f1_plots(models: Sequence[ModelScore], tasks: Sequence[Task]) -> list[Plot]:
    """Return F1 per class as bars with 95 % intervals as whiskers, over all benchmarks of a model.

    One model has a group of bars for each task, a bar for each class. Several have a group for each class, a bar for
    each model, in the order given and in the same colour throughout. Where F1 is undefined, a word says so.

    Args:
        models: with different names.
        tasks: what was answered.

    Returns:
        One plot, named ``f1``; none where no model has an F1 for a task.
    """
    groups: list[tuple[str, list[_Bar]]] = []
    for task in tasks:
        found = [next((row.f1 for row in one.averages if row.task == task.name), None) for one in models]
        if not any(found):
            continue
        by_class = {label: [f1[label] if f1 else None for f1 in found] for label in task.labels[:_CLASSES]}
        if len(models) == 1:
            groups.append((task.name, [(label, f1, 0) for label, (f1,) in by_class.items()]))
        else:
            groups += [(f"{task.name}: {label}", _of_models(models, of)) for label, of in by_class.items()]
        if left_out := len(task.labels) - len(by_class):
            title, bars = groups[-1]
            groups[-1] = title, [*bars, (f"{left_out} more classes are not shown", None, -1)]
    return [_bars("f1", "F1 per class in percent, with 95 % intervals", groups)] if groups else []


def hard_plots(models: Sequence[ModelScore]) -> list[Plot]:
    """Return hard-sample accuracy as one bar a model, with 95 % intervals as whiskers.

    Args:
        models: with different names; one without outputs on hard records is shown as undefined.

    Returns:
        One plot, named ``hard``; none where no model has such outputs.
    """
    if not any(one.hard for one in models):
        return []
    bars = _of_models(models, [one.hard.accuracy if one.hard else None for one in models])
    return [_bars("hard", "Hard-sample accuracy in percent, with 95 % intervals", [("", bars)])]


def confusion_plots(models: Sequence[ModelScore], tasks: Sequence[Task]) -> list[Plot]:
    """Return confusion matrices: gold labels as rows, verdicts as columns, unparsed the last of them.

    A cell says how many answers there are and which share of their row that is; the larger the share, the stronger its
    colour, which is one for right and another for wrong answers. With many labels there is room for the share alone,
    then for the colour alone. A row that no record is in says so.

    Args:
        models: with different names; each has a matrix of its own.
        tasks: what was answered.

    Returns:
        One plot a task, named ``confusion-`` and the task; none for a task without a gold label.
    """
    plots = []
    for task in tasks:
        found = [(one.model, matrix) for one in models for matrix in one.confusions if matrix.task == task.name]
        if found:
            title = f"Answers by gold label: {short(task.name)}"
            plots.append(_matrices(f"confusion-{task.name}", title, found))
    return plots


def _of_models(models: Sequence[ModelScore], figures: Sequence[Estimate | None]) -> list[_Bar]:
    if all(one is None or one.value is None for one in figures):
        return [("every model", None, 0)]
    return [(model.model, one, number) for number, (model, one) in enumerate(zip(models, figures, strict=True))]


def _bars(name: str, title: str, groups: Sequence[tuple[str, Sequence[_Bar]]]) -> Plot:
    """Return bars from 0 to 100 %, a panel a group, the figure itself at the right of its bar."""
    heights = [(0.36 if called else 0.1) + 0.25 * len(bars) for called, bars in groups]

    def draw(figure: Any, colours: Sequence[str]) -> None:
        from matplotlib import rcParams

        panels = figure.subplots(len(groups), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for (called, bars), axes in zip(groups, panels, strict=True):
            values = [(one.value or 0.0) if one else 0.0 for _, one, _ in bars]
            axes.barh(range(len(bars)), values, 0.7, color=[colours[place % len(colours)] for _, _, place in bars])
            for row, (_, one, place) in enumerate(bars):
                if one and one.low is not None and one.high is not None:
                    axes.plot([one.low, one.high], [row, row], color=rcParams["text.color"], linewidth=1.2, marker="|")
                if one and one.value is not None:
                    at_the_end = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
                    axes.annotate(f"{one.value:.1f}", (1, row), (36, 0), ha="right", va="center_baseline", **at_the_end)
                elif place >= 0:
                    axes.text(1, row, UNDEFINED, va="center", fontstyle="italic")
            name_rows(axes, [bar[0] for bar in bars])
            axes.set_ylim(len(bars) - 0.4, -0.6)
            axes.set_xlim(0, 100)
            if called:
                axes.set_title(short(called, 56), loc="left", fontweight="bold", fontsize="medium", pad=3)
        panels[-1].set_xlabel("%")

    return Plot(name, title, 0.7 + sum(heights), draw)


def _matrices(name: str, title: str, found: Sequence[tuple[str, Confusion]]) -> Plot:
    labels = found[0][1].labels
    abreast = 2 if len(labels) < 4 and len(found) > 1 else 1
    deep = -(-len(found) // abreast)
    row = min(0.5, 4.0 / len(labels)) if len(labels) > 6 else 0.5

    def draw(figure: Any, colours: Sequence[str]) -> None:
        grid = figure.subplots(deep, abreast, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number >= len(found):
                axes.set_axis_off()
                continue
            _matrix(axes, found[number][1], colours, names=number % abreast == 0, heads=number < abreast)
            if len(found) > 1:
                axes.set_title(short(found[number][0], 36 // abreast), loc="left", fontweight="bold", fontsize="medium")
        figure.supylabel("gold label", fontsize="medium")

    return Plot(name, title, 1.4 + deep * (row * len(labels) + (0.35 if len(found) > 1 else 0)), draw)


def _matrix(axes: Any, matrix: Confusion, colours: Sequence[str], names: bool, heads: bool) -> None:
    from matplotlib import rcParams
    from matplotlib.patches import Rectangle

    labels = matrix.labels
    roomy = len(labels) < 4 and max(map(max, matrix.counts)) < 10_000
    for row, counts in enumerate(matrix.counts):
        for column, text, share in _cells(counts, len(labels)):
            colour = colours[_RIGHT if column == row else _WRONG]
            place, opacity = (column - 0.47, row - 0.47), _DARKEST * share**0.5  # the root shows small shares, too
            axes.add_patch(Rectangle(place, 0.94, 0.94, color=colour, alpha=opacity, linewidth=0))
            axes.add_patch(Rectangle(place, 0.94, 0.94, fill=False, color=rcParams["axes.edgecolor"], linewidth=0.4))
            axes.text(column, row, text, ha="center", va="center", fontsize="medium" if roomy else "small")
    axes.set_xlim(-0.5, len(labels) + 0.5)
    name_rows(axes, labels if names else [""] * len(labels), longest=14)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.xaxis.tick_top()
    if heads:
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("answered")
    columns = [*(short(label, 14) for label in labels), UNPARSED] if heads else [""] * (len(labels) + 1)
    axes.set_xticks(range(len(labels) + 1), columns, rotation=30, ha="left", rotation_mode="anchor")
    for label in axes.get_xticklabels():
        label.set_parse_math(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _cells(counts: Sequence[int], labels: int) -> Iterator[tuple[int, str, float]]:
    """Yield column, text and share of a row's cells."""
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
