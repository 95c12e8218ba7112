"""The one exception for a user's mistake: one line, at most one hint line, never a traceback."""

from collections.abc import Sequence


class InputError(Exception):
    """Bad input, as the person who gave it should read it.

    Args:
        message: one line: where (file:line, config key, record id), what was found, what was expected.
        hint: at most one more line, usually the command that mends it.
        details: where the message counts many faults, each of them, to be shown before it.
    """

    exit_code = 2
    """Of the process that ends with this error."""

    def __init__(self, message: str, hint: str | None = None, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = tuple(details)

    def lines(self) -> str:
        """Return what goes to stderr: the details, the message and, below it, the hint."""
        hint = [f"hint: {self.hint}"] if self.hint else []
        return "\n".join([*self.details, f"error: {self}", *hint])
