"""The plot of a study: the compared arm minus each other arm, with 95 % intervals."""

from collections.abc import Mapping
from pathlib import Path

from evidence.differences import FIGURES, Difference
from evidence.study import Figure
from guardreasoner.records import replacing_file

_SETTINGS = {
    **{"svg.fonttype": "none", "svg.hashsalt": "evidence"},  # texts stay texts, and ids do not change
    **{"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "text.parse_math": False},
}
_BLUE = "#2f6db5"


def write_plot(
    path: Path, compared: str, titles: Mapping[str, str], differences: Mapping[Figure, Mapping[str, Difference]]
) -> None:
    """Write an SVG that depends on nothing but the differences; a difference from one seed has an open circle.

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
                points, seeds = differences[name][arm].points, differences[name][arm].seeds
                axes.plot([points.low, points.high], [row, row], color=_BLUE, linewidth=1.5)
                filling = _BLUE if len(seeds) > 1 else "white"
                axes.plot([points.value], [row], "o", color=_BLUE, markerfacecolor=filling, markersize=4)
            axes.axvline(0, color="#888888", linewidth=0.8)
            axes.set_xlabel(f"{name} records")
        panels[0].set_yticks(range(len(titles)), list(titles.values()))
        panels[0].invert_yaxis()
        canvas.suptitle(f"{compared}, minus …, in percentage points; open circles: one seed")
        with replacing_file(path) as partial:
            canvas.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})
