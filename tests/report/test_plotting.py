"""Names on plots: cut in the middle, without what cannot be printed; figures keep what names hold."""

from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from guardreasoner.report.plotting import COLOURS, Plot, name_rows, render_figures, short


@pytest.mark.parametrize(
    ("name", "longest", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "ab…efg"),
        ("abcdefg", 5, "ab…fg"),
        ("ab" * 500_000, 6, "ab…bab"),
        ("a\x1b[31mb\nc\u202e\x00\ud800", 28, "a�[31mb�c���"),
        ("مرحبا", 28, "مرحبا"),
    ],
)
def test_long_names_lose_their_middle(name: str, longest: int, shown: str) -> None:
    assert short(name, longest) == shown


def test_a_figure_is_as_wide_as_asked_and_holds_names_as_they_are() -> None:
    seen = []

    def draw(figure: Any, colours: Any) -> None:
        seen.extend(colours)
        axes = figure.subplots()
        axes.barh([0, 1], [1, 2])
        name_rows(axes, ["$\\frac$", "b"])

    (name,) = made = render_figures([Plot("one", "A $title$", 2.5, draw)], width=4)
    FigureCanvasAgg(made[name]).draw()
    assert (name, tuple(made[name].get_size_inches()), tuple(seen)) == ("one", (4, 2), COLOURS)
    axes = made[name].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$\\frac$", "b"]
    assert axes.yaxis_inverted()
    assert render_figures([]) == {}
