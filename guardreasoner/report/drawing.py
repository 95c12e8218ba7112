"""Plots as inline SVG: text stays text, colours are the page's variables, so that they follow it into the dark."""

import re
import warnings
from collections.abc import Callable
from html import escape
from io import StringIO
from typing import Any

from guardreasoner.report.plotting import Plot

# Colours that matplotlib writes down and nobody else uses; each stands for a variable of the page.
_INK, _FAINT, LIMIT = "#010101", "#020202", "#030303"
SERIES = tuple(f"#0000{number:02x}" for number in range(4, 12))
"""What stands for the colours of series, in order; ``LIMIT`` for that of a line that must not be crossed."""

_VARIABLES = {_INK: "--ink", _FAINT: "--faint", LIMIT: "--limit"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES)
}
_WIDTH = 5.0
"""Inches, so narrow that the text is readable when the plot is as wide as a phone."""

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


def drawing(plot: Plot, name: str, description: str = "") -> str:
    """Return a plot in the page's colours.

    Args:
        plot: what is drawn.
        name: of the plot in its page, where no other has it: letters, digits, "-" and "_".
        description: what a reader who does not see it should know, such as where its numbers stand.
    """

    def draw(figure: Any) -> None:
        plot.draw(figure, SERIES)

    return svg(draw, plot.height, name, plot.title, description)


def svg(draw: Callable[[Any], None], height: float, name: str, title: str, description: str = "") -> str:
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
