"""Renders the HTML templates; all data are escaped, and a page loads no other files."""

from typing import TYPE_CHECKING, Any

from guardreasoner import __version__
from guardreasoner.workflow.visible_text import visible_text

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(template: str, **values: Any) -> str:
    """Render a page, with control and direction characters replaced by visible ones.

    Args:
        template: File name in ``templates``.
        values: Variables of the template.
    """
    return visible_text(_environment().get_template(template).render(version=__version__, **values))


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("guardreasoner.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["lines"] = lambda text: [line for line in text.split("\n") if line]
    return environment
