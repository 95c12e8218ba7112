"""Renders the HTML templates; all data are escaped, and a page loads no other files."""

from typing import TYPE_CHECKING, Any

from guardreasoner import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

_VISIBLE: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"},  # ESC becomes ␛
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),  # a lone surrogate cannot be encoded as UTF-8
    **{code: f"⟨U+{code:04X}⟩" for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))},
}
"""Visible replacements of control characters and of characters that change the text direction."""


def render_page(template: str, **values: Any) -> str:
    """Render a page, with control and direction characters replaced by visible ones.

    Args:
        template: File name in ``templates``.
        values: Variables of the template.
    """
    return _environment().get_template(template).render(version=__version__, **values).translate(_VISIBLE)


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
