"""Plots as inline SVG with selectable text; colours are CSS variables, which follow the light or dark theme."""

import re
import warnings
from collections.abc import Callable
from html import escape
from io import StringIO
from typing import Any

from guardreasoner.report.plot import Plot

# Placeholder colours: matplotlib writes them into the SVG, and each is then replaced with a CSS variable.
_INK, _FAINT, LIMIT = "#010101", "#020202", "#030303"
SERIES = tuple(f"#0000{number:02x}" for number in range(4, 12))
"""Placeholders of the series colours, in order; ``LIMIT`` is the placeholder for a limit line."""

_VARIABLES = {_INK: "--ink", _FAINT: "--faint", LIMIT: "--limit"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES)
}
_WIDTH = 5.0
"""Inches. Narrow enough that text is readable when the plot is scaled to the width of a phone."""

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
    "text.parse_math": False,  # names may contain dollar signs
}


def plot_svg(plot: Plot, name: str, description: str = "") -> str:
    """Return a plot as inline SVG.

    Args:
        plot: The plot to draw.
        name: Prefix of the ids in the SVG, unique in the page: letters, digits, "-" and "_".
        description: Text for screen readers, such as where to find the numbers.
    """

    def draw(figure: Any) -> None:
        plot.draw(figure, SERIES)

    return draw_svg(draw, plot.height, name, plot.title, description)


def draw_svg(draw: Callable[[Any], None], height: float, name: str, title: str, description: str = "") -> str:
    """Draw a matplotlib figure and return it as inline SVG.

    The SVG has no external references and no fixed size, its ids start with ``name``, and it has an accessible title.

    Args:
        draw: Draws on the matplotlib figure.
        height: Height in inches at a width of five inches.
        name: Prefix of the ids in the SVG, unique in the page.
        title: Accessible title.
        description: Text for screen readers; may be empty.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has fonts that matplotlib lacks
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        out = StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    view_box = re.search(r'viewBox="([^"]*)"', text)
    assert view_box is not None
    body = text[text.index(">") + 1 :].replace("xlink:href", "href")
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(href="#|url\(#)', rf"\1{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    label = f'aria-label="{escape(title)}"' + (f' aria-describedby="{name}-desc"' if description else "")
    desc = f'<desc id="{name}-desc">{escape(description)}</desc>' if description else ""
    return f'<svg class="plot" viewBox="{view_box[1]}" role="img" {label}><title>{escape(title)}</title>{desc}{body}'
