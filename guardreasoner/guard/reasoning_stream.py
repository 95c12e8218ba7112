"""The reasoning in an answer that is still being written, without the answer block that may follow it."""

from guardreasoner.formats import GuardFormat
from guardreasoner.prompts import PromptFormat


class ReasoningStream:
    """Finds the reasoning in the pieces of an answer.

    What :meth:`take` returns is a prefix of the reasoning of the whole answer. A line that may belong to the answer
    block is held back until it is clear whether it does. In a format of another guard, each line is held back until it
    is complete.

    Args:
        format: format of the guard.
    """

    def __init__(self, format: GuardFormat) -> None:
        self._format = format
        self._text = self._taken = ""
        self._final: str | None = None

    def add(self, piece: str) -> None:
        """Add a piece of the answer."""
        self._text += piece

    def restart(self) -> bool:
        """Forget everything; return whether reasoning had been taken, which is now void."""
        was_taken = bool(self._taken)
        self._text = self._taken = ""
        return was_taken

    def finish(self, reasoning: str) -> bool:
        """Set the reasoning of the complete answer; return whether it does not begin with what has been taken."""
        self._final = reasoning
        return not reasoning.startswith(self._taken) and self.restart()

    def take(self) -> str:
        """Return the reasoning that is new since the last call."""
        found = self._sure() if self._final is None else self._final
        if not found.startswith(self._taken):
            return ""
        new = found[len(self._taken) :]
        self._taken = found
        return new

    def _sure(self) -> str:
        """Return what is certainly reasoning."""
        lines, newline, last = self._text.rpartition("\n")
        complete = self._format.reasoning(lines)
        is_open = isinstance(self._format, PromptFormat) and not self._may_answer(last)
        return f"{lines}{newline}{last}".rstrip() if is_open else complete

    def _may_answer(self, line: str) -> bool:
        """Return whether an unfinished line of GuardReasoner's format may be one of the answer block."""
        begun = line.strip().lstrip("#").lstrip().casefold()
        starts = ("answer", *(task.key.casefold() for task in self._format.tasks))
        return any(begun.startswith(start) or start.startswith(begun) for start in starts)
