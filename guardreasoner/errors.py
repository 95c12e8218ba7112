"""Exceptions that end a command with one line and at most one hint line: user errors and machine faults."""

import errno
import os
import re
from collections.abc import Sequence
from typing import Any


class InputError(Exception):
    """Wrong input, described for the user who gave it.

    Args:
        message: one line: where (file:line, config key, record id), what is wrong, what was expected.
        hint: at most one more line, usually the command that fixes the error. A traceback shows it as a note.
        details: lines to print before the message, one per fault, if the message sums up several faults.
    """

    exit_code = 2
    """Exit code of a process that this error ends."""

    def __init__(self, message: str, hint: str | None = None, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # shown in a traceback
        self.details = tuple(details)

    def lines(self) -> str:
        """Return the text to print to stderr: the details, the message, then the hint, each in one line."""
        hint = [f"hint: {self.hint}"] if self.hint else []
        return "\n".join(" ".join(part.splitlines()) for part in (*self.details, f"error: {self}", *hint))


class MachineFault(InputError):
    """A fault of the machine, such as a full disk, described for the user."""

    exit_code = 1


def machine_error(error: BaseException) -> OSError | None:
    """Return the error of the operating system that an exception stands for, None if it is another exception.

    Libraries written in Rust or C++ raise other classes than ``OSError``, which have the cause in their text.
    """
    cause: BaseException | None = error
    seen = set[int]()  # causes may form a cycle
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, OSError):
            return cause if cause.errno else None
        if found := re.search(r"\(os error (\d+)\)", str(cause)):
            return OSError(int(found[1]), os.strerror(int(found[1])))
        if re.search("PytorchStreamWriter failed|iostream error", str(cause)):
            return OSError(errno.EIO, "the file could not be written completely")
        cause = cause.__cause__
    return None


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
