"""Read a conversation that is stored as a list of messages, in the form of OpenAI or of ShareGPT."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_call", "tool_call", "ipython"), "tool"),
}
"""Role of a message by its name in the file."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A conversation of one turn.

    Args:
        prompt: text of the user.
        response: text of the assistant; None if there is none.
        has_system: whether there is a system message, which is not part of a record.
    """

    prompt: str
    response: str | None
    has_system: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A valid row that cannot be used.

    Args:
        reason: why, for the count of rows that are left out.
    """

    reason: str


def read_turn(messages: Any) -> Turn | LeftOut:
    """Read a list with an optional system message, a user's message and an optional answer.

    Raises:
        ValueError: the value is not a conversation; the message says what was found.
    """
    read = read_messages(messages)
    roles = [role for role, _ in read]
    has_system = roles[:1] == ["system"]
    if "tool" in roles or any(
        isinstance(m, Mapping) and (m.get("tool_calls") or m.get("function_call")) for m in messages
    ):
        return LeftOut("a conversation with tool calls")
    if roles[has_system:] not in (["user"], ["user", "assistant"]):
        if "user" not in roles:
            raise ValueError("found no message of the user")
        return LeftOut("a conversation of more than one turn")
    texts = [text for _, text in read[has_system:]]
    return Turn(texts[0], texts[1] if len(texts) > 1 else None, has_system)


def read_messages(messages: Any) -> list[tuple[str, str]]:
    """Return role (system, user, assistant or tool) and text of each message.

    Raises:
        ValueError: the value is not a list of messages with a known role and a text.
    """
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not messages:
        raise ValueError("expected a list of messages")
    read = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise ValueError(f"message {number}: expected an object with role and content")
        name = message.get("role", message.get("from"))
        role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
        if role is None:
            raise ValueError(f"message {number}: found the role {str(name)[:40]!r}, expected system, user or assistant")
        read.append((role, _text(message.get("content", message.get("value")), number, role)))
    return read


def _text(content: Any, number: int, role: str) -> str:
    """Return the text of a message, which may be a list of parts."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if parts and len(texts) == len(parts):
            return "".join(texts)
        raise ValueError(f"message {number}: found a part that is not text")
    if content is None and role in ("assistant", "tool"):
        return ""  # the content of a tool call
    if not isinstance(content, str):
        raise ValueError(f"message {number}: the content is missing, or is not text")
    return content
