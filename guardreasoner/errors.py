"""The exception for user errors, printed as one line and at most one hint line, without a traceback."""

from collections.abc import Sequence
from typing import Any


class InputError(Exception):
    """Wrong input, described for the user who gave it.

    Args:
        message: one line: where (file:line, config key, record id), what is wrong, what was expected.
        hint: at most one more line, usually the command that fixes the error.
        details: lines to print before the message, one per fault, if the message sums up several faults.
    """

    exit_code = 2
    """Exit code of a process that this error ends."""

    def __init__(self, message: str, hint: str | None = None, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = tuple(details)

    def lines(self) -> str:
        """Return the text to print to stderr: the details, the message, then the hint."""
        hint = [f"hint: {self.hint}"] if self.hint else []
        return "\n".join([*self.details, f"error: {self}", *hint])


def unique_keys(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the JSON object of these items, for ``json.loads(text, object_pairs_hook=unique_keys)``.

    Raises:
        ValueError: a key occurs twice; Python would silently keep the last value.
    """
    value = dict(items)
    if len(value) < len(items):
        keys = [key for key, _ in items]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return value
