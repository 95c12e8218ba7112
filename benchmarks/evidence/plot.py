"""The plot of a study: the compared arm minus each other arm, with 95 % intervals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evidence.differences import FIGURES, Difference
from evidence.study import Figure
from guardreasoner.records import replacing_file

_SETTINGS = {
    **{"svg.fonttype": "none", "svg.hashsalt": "evidence"},  # texts stay texts, and ids do not change
    **{"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "text.parse_math": False},
}
_BLUE = "#2f6db5"
_BORDER = 25.0
"""Points beyond which a difference is a triangle at the border with its value, so that the others can be told apart."""


def write_plot(
    path: Path, compared: str, titles: Mapping[str, str], differences: Mapping[Figure, Mapping[str, Difference]]
) -> None:
    """Write an SVG that depends on nothing but the differences.

    A difference from one seed has an open circle, and one of more than 25 points a triangle at the border.

    Args:
        path: The file.
        compared: Title of the arm that the others are subtracted from.
        titles: Titles of the other arms.
        differences: Differences by figure and arm.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(_SETTINGS):
        canvas = Canvas(figsize=(10, 1.2 + 0.25 * len(titles)), layout="constrained", facecolor="white")
        panels = canvas.subplots(1, len(FIGURES), sharey=True)
        for axes, name in zip(panels, FIGURES, strict=True):
            for row, arm in enumerate(titles):
                _draw(axes, row, differences[name][arm])
            axes.axvline(0, color="#888888", linewidth=0.8)
            axes.set_xlabel(f"{name} records")
        panels[0].set_yticks(range(len(titles)), list(titles.values()))
        panels[0].invert_yaxis()
        marks = f"open circles: one seed; triangles: more than {_BORDER:g}"
        canvas.suptitle(f"{compared}, minus …, in percentage points; {marks}")
        with replacing_file(path) as partial:
            canvas.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})


def _draw(axes: Any, row: int, difference: Difference) -> None:
    value, low, high = difference.points.value, difference.points.low, difference.points.high
    style = {"color": _BLUE, "markerfacecolor": _BLUE if len(difference.seeds) > 1 else "white", "markersize": 4}
    if value is not None and abs(value) > _BORDER:
        border = _BORDER if value > 0 else -_BORDER
        axes.plot([border], [row], ">" if value > 0 else "<", **style)
        axes.annotate(
            f"{value:+.0f}",
            (border, row),
            (-4 if value > 0 else 4, 0),
            textcoords="offset points",
            ha="right" if value > 0 else "left",
            va="center",
            fontsize=8,
        )
        return
    if low is not None and high is not None:
        axes.plot([max(low, -_BORDER), min(high, _BORDER)], [row, row], color=_BLUE, linewidth=1.5)
    axes.plot([value], [row], "o", **style)
