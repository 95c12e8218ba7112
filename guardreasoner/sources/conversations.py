"""Read a conversation that is stored as a list of messages, in the form of OpenAI or of ShareGPT.

The two forms may be mixed. A message of OpenAI's form has ``role`` and ``content``, a text or a list of parts that are
texts, and may have ``tool_calls`` or the older ``function_call``. One of ShareGPT's form has ``from`` and ``value``; a
call of a tool is a message ``function_call``, whose value is JSON, or stands between ``<tool_call>`` and
``</tool_call>`` in the text of the assistant. Names of tools are kept for calls only; ids of calls are not kept.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from guardreasoner.records import Message, Role, ToolCall, parse_json

_CALL = "tool call"
_ROLES: dict[str, Role | str] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), _CALL),
}
"""Role of a message, or that it is a call of a tool, by its name in the file."""

_CALL_START, _CALL_END = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A valid row that cannot be used.

    Args:
        reason: why, for the count of rows that are left out.
    """

    reason: str


def read_messages(value: Any) -> tuple[Message, ...]:
    """Read the messages of a conversation.

    Two messages of one author in a row, a system message in the middle and a first message of the assistant are
    accepted, since real logs have them.

    Args:
        value: a list of messages, or its JSON text.

    Raises:
        ValueError: the value is no conversation: a message has no known role, no text or a call that is no JSON, a
            result of a tool follows no call, or no message is of the user. The message says what was found.
    """
    messages = tuple(_message(item, number) for number, item in enumerate(_list(value), start=1))
    if not any(message.role == "user" for message in messages):
        raise ValueError("found no message of the user")
    if [message.role for message in messages] not in (["user"], ["user", "assistant"]):
        messages = tuple(map(_with_calls_in_text, messages))
    for number, (before, message) in enumerate(pairwise(messages), start=2):
        if message.role == "tool" and before.role != "tool" and not before.tool_calls:
            raise ValueError(f"message {number}: found the result of a tool, expected a call of a tool before it")
    if messages[0].role == "tool":
        raise ValueError("message 1: found the result of a tool, expected a call of a tool before it")
    return messages


def read_list(value: Any) -> tuple[Message, ...]:
    """Read messages as :func:`read_messages` does, but in any order."""
    return tuple(_message(item, number) for number, item in enumerate(_list(value), start=1))


def turns(messages: Sequence[Message]) -> int:
    """Return the number of turns, which is that of the user's messages."""
    return sum(message.role == "user" for message in messages)


def _list(value: Any) -> Sequence[Any]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise ValueError(f"{error}; expected a list of messages") from None
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ValueError("expected a list of messages")
    return value


def _message(item: Any, number: int) -> Message:
    where = f"message {number}"
    if not isinstance(item, Mapping):
        raise ValueError(f"{where}: expected an object with role and content")
    name = _first(item, "role", "from")
    role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        raise ValueError(f"{where}: found the role {str(name)[:40]!r}, expected system, user, assistant or tool")
    content = _first(item, "content", "value")
    if role == _CALL:
        message = Message("assistant", "", tuple(_calls(_parsed(content, where), where)))
    else:
        given = item.get("tool_calls") or []
        given = [*given, item["function_call"]] if _is_list(given) and item.get("function_call") else given
        calls = tuple(_calls(given, where)) if given else ()
        if calls and role != "assistant":
            raise ValueError(f"{where}: found a tool call of the {role}, expected one of the assistant")
        if content is None and role == "assistant":
            content = item.get("refusal")
        text = _text(content, where, may_be_absent=role in ("assistant", "tool"))
        message = Message(role, text, calls)  # type: ignore[arg-type]  # the roles but _CALL
    if message.role == "user" and not message.content.strip():
        raise ValueError(f"{where}: found an empty text, expected text")
    for text in (message.content, *(text for call in message.tool_calls for text in (call.name, call.arguments))):
        require_unicode(text, where)
    return message


def _first(item: Mapping[Any, Any], *names: str) -> Any:
    """Return the first value that is not None: in Parquet files, each message has all fields."""
    return next((item[name] for name in names if item.get(name) is not None), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _text(content: Any, where: str, may_be_absent: bool) -> str:
    """Return the text of a message, which may be a list of parts."""
    if isinstance(content, list):
        parts = [_first(part, "text", "refusal") if isinstance(part, Mapping) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if parts and len(texts) == len(parts):
            return "".join(texts)
        raise ValueError(f"{where}: found a part that is not text")
    if content is None and may_be_absent:
        return ""
    if not isinstance(content, str):
        raise ValueError(f"{where}: the content is missing, or is not text")
    return content


def _parsed(value: Any, where: str) -> Any:
    """Return the value of a ``function_call`` message, which may be JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise ValueError(f"{where}: the tool call is no JSON: {error}") from None


def _calls(value: Any, where: str) -> Iterator[ToolCall]:
    """Yield the calls of a value: a call or a list of calls, ``{"name", "arguments"}``, alone or as ``function``."""
    calls = value if _is_list(value) else [value]
    if not calls:
        raise ValueError(f"{where}: found no tool call, expected an object with name and arguments")
    for number, call in enumerate(calls, start=1):
        place = f"{where}: tool call {number}" if len(calls) > 1 else f"{where}: tool call"
        function = call.get("function") if isinstance(call, Mapping) else None
        function = call if function is None else function
        name = _first(function, "name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{place}: expected an object with name and arguments")
        yield ToolCall(name, _arguments(_first(function, "arguments", "parameters"), f"{place} of {name[:40]!r}"))


def _arguments(value: Any, where: str) -> str:
    """Return arguments as JSON text: a text as it is, and ``{}`` for arguments that are absent or empty."""
    if value is None or value == "":
        return "{}"
    if isinstance(value, str):
        try:
            parse_json(value)
        except ValueError as error:
            raise ValueError(f"{where}: the arguments are no JSON: {error}") from None
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"{where}: the arguments are no JSON") from None


def _with_calls_in_text(message: Message) -> Message:
    """Return a message whose calls between tags in the text, if all are valid, are its tool calls."""
    if message.role != "assistant" or message.tool_calls or _CALL_START not in message.content:
        return message
    before, *pieces = message.content.split(_CALL_START)
    rest, calls = [before], list[ToolCall]()
    for piece in pieces:
        text, end, after = piece.partition(_CALL_END)
        if not end:
            return message
        rest.append(after)
        try:
            calls += _calls(parse_json(text), "")
        except ValueError:
            return message
    return replace(message, content="".join(rest).strip(), tool_calls=tuple(calls))


def require_unicode(text: str, where: str) -> str:
    """Return a text; raise ``ValueError`` if it holds a lone surrogate, which no tokenizer accepts."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise ValueError(
            f"{where}: found a lone surrogate ({code}) at character {error.start + 1}, expected Unicode text"
        ) from None
    return text
