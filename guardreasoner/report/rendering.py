"""Templates to pages: everything from data is escaped, and a page needs nothing but itself."""

from typing import TYPE_CHECKING, Any

from guardreasoner import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

_VISIBLE: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"},  # ESC is ␛
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),  # half a surrogate pair has no UTF-8
    **{code: f"⟨U+{code:04X}⟩" for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))},
}
"""Characters that a browser does not show, or that turn the direction of a line, and what stands for them."""


def render(template: str, **values: Any) -> str:
    """Return a page; what would steer a terminal or turn the direction of a line is made visible in it.

    Args:
        template: a file in ``templates``.
        values: what it names.
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
