"""Make characters visible that control a terminal, break a line or reverse the direction of text."""

_CONTROLS: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(0x20)},  # ESC becomes ␛
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),  # an unpaired surrogate cannot be encoded as UTF-8
    **{
        code: f"⟨U+{code:04X}⟩"
        for code in (0x61C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    },
}
"""Visible replacement of each character."""

_TEXT = {code: replacement for code, replacement in _CONTROLS.items() if chr(code) not in "\t\n"}


def visible_text(text: str) -> str:
    """Return a text, which may have several lines and tabs, without control and direction characters."""
    return text.replace("\r\n", "\n").translate(_TEXT)


def visible_line(text: str) -> str:
    """Return a text as one line: as :func:`visible_text`, and with visible line breaks and tabs."""
    return text.translate(_CONTROLS)
