"""Read a conversation that is stored as a list of messages, in the form of OpenAI or of ShareGPT.

The two forms may be mixed. A message of OpenAI's form has ``role`` and ``content``, a text or a list of parts that are
texts, and may have ``tool_calls`` or the older ``function_call``. One of ShareGPT's form has ``from`` and ``value``; a
call of a tool is a message ``function_call``, whose value is JSON, or stands between ``<tool_call>`` and
``</tool_call>`` in the text of the assistant. Names of tools are kept for calls only; ids of calls are not kept.
Content that a record cannot hold, such as an image or a second text, is a fault.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from guardreasoner.records import Message, Role, ToolCall
from guardreasoner.records.jsonl import parse_json

_CALL = "tool call"
_ROLES: dict[str, Role | str] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), _CALL),
}
"""Role of a message, or that it is a call of a tool, by its name in the file."""

_TEXT_FIELDS = ("content", "value", "refusal")
"""Fields of a message that hold its text; several must hold the same one."""
_OTHER_CONTENT = (
    *("text", "parts", "input", "output", "arguments"),
    *("reasoning", "reasoning_content", "thinking"),
    *("audio", "image", "images", "image_url", "video", "videos", "file", "files", "attachments"),
)
"""Fields of a message with content that a record cannot hold."""
_PART_TYPES = (None, "text", "input_text", "output_text", "refusal")
_PART_FIELDS = ("type", "text", "refusal", "id", "index", "annotations", "citations", "logprobs", "cache_control")
_ARGUMENTS = ("arguments", "parameters", "input", "args")
_CALL_FIELDS = ("function", "name", *_ARGUMENTS, "type", "id", "call_id", "tool_call_id", "index", "status")

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
        ValueError: the value is no conversation: a message has no known role, no text or a call that is not JSON, a
            result of a tool follows no call, or no message is of the user. The message says what was found.
    """
    messages = tuple(_message(item, number) for number, item in enumerate(_list(value), start=1))
    if not any(message.role == "user" for message in messages):
        roles = ", ".join(dict.fromkeys(str(item.get("role") or item.get("from"))[:40] for item in _list(value)))
        raise ValueError(f"found no message of the user, only of {roles}")
    if [message.role for message in messages] not in (["user"], ["user", "assistant"]):
        messages = tuple(map(with_calls_in_text, messages))
    for number, (before, message) in enumerate(pairwise(messages), start=2):
        if message.role == "tool" and before.role != "tool" and not before.tool_calls:
            raise ValueError(f"message {number}: found the result of a tool, expected a call of a tool before it")
    if messages[0].role == "tool":
        raise ValueError("message 1: found the result of a tool, expected a call of a tool before it")
    return messages


def read_list(value: Any) -> tuple[Message, ...]:
    """Read messages as :func:`read_messages` does, but in any order."""
    return tuple(_message(item, number) for number, item in enumerate(_list(value), start=1))


def with_calls_in_text(message: Message) -> Message:
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
    role = _role(item, where)
    if found := next((name for name in _OTHER_CONTENT if not _is_empty(item.get(name))), None):
        same = isinstance(item[found], str) and any(item.get(name) == item[found] for name in _TEXT_FIELDS)
        if not same:
            raise ValueError(f"{where}: found {found}, which cannot be kept; expected all content in content or value")
    given = [call for name in ("tool_calls", "function_call") for call in _items(item.get(name))]
    if role == _CALL:
        if given:
            raise ValueError(f"{where}: found a tool call beside the one in its content, expected one of them")
        content = _only(item, _TEXT_FIELDS, where)
        message = Message("assistant", "", tuple(_calls(_parsed(content, where), where)))
    else:
        calls = tuple(_calls(given, where)) if given else ()
        if calls and role != "assistant":
            raise ValueError(f"{where}: found a tool call of the {role}, expected one of the assistant")
        is_given = bool(calls) or any(name in item for name in _TEXT_FIELDS)
        may_be_absent = is_given and role in ("assistant", "tool")
        text = _text(_only(item, _TEXT_FIELDS, where), where, may_be_absent)
        message = Message(role, text, calls)  # type: ignore[arg-type]  # the roles but _CALL
    if message.role == "user" and not message.content.strip():
        raise ValueError(f"{where}: found an empty text, expected text")
    for text in (message.content, *(text for call in message.tool_calls for text in (call.name, call.arguments))):
        require_unicode(text, where)
    return message


def _role(item: Mapping[Any, Any], where: str) -> Role | str:
    names = [item[name] for name in ("role", "from") if item.get(name) is not None] or [None]
    roles = [_ROLES.get(name.strip().lower()) if isinstance(name, str) else None for name in names]
    for name, role in zip(names, roles, strict=True):
        if role is None:
            raise ValueError(f"{where}: found the role {str(name)[:40]!r}, expected system, user, assistant or tool")
        if role != roles[0]:
            raise ValueError(f"{where}: found role {names[0]!r} and from {name!r}, expected the same author")
    return roles[0]  # type: ignore[return-value]  # none is None


def _only(item: Mapping[Any, Any], names: Sequence[str], where: str) -> Any:
    """Return the value of the fields; an empty one, or None if all are null, only if no other field has a value.

    Raises:
        ValueError: two fields have different values.
    """
    given = [name for name in names if item.get(name) is not None]
    filled = [name for name in given if not _is_empty(item[name])]
    if other := next((name for name in filled if item[name] != item[filled[0]]), None):
        raise ValueError(f"{where}: found {filled[0]} and a different {other}, expected one of them")
    return item[(filled or given)[0]] if given else None


def _is_empty(value: Any) -> bool:
    """Return whether a value has no content; in Parquet files, an object may have all fields and no value."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, Mapping):
        return all(field is None for field in value.values())
    return value is None or (_is_list(value) and not value)


def _items(value: Any) -> Sequence[Any]:
    """Return a list as it is, another value as a list of one, and an empty value as no item."""
    if _is_list(value):
        return value
    return [] if _is_empty(value) else [value]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _text(content: Any, where: str, may_be_absent: bool) -> str:
    """Return the text of a message, which may be a list of parts."""
    if isinstance(content, list):
        if not content:
            raise ValueError(f"{where}: found no part, expected text")
        return "".join(_part(part, where) for part in content)
    if content is None and may_be_absent:
        return ""
    if not isinstance(content, str):
        raise ValueError(f"{where}: the content is missing, or is not text")
    return content


def _part(part: Any, where: str) -> str:
    """Return the text of a part of a message."""
    if isinstance(part, Mapping):
        kind = part.get("type")
        if kind not in _PART_TYPES:
            raise ValueError(f"{where}: found a part of type {str(kind)[:40]!r}, expected text")
        if other := next((name for name in part if name not in _PART_FIELDS and not _is_empty(part[name])), None):
            raise ValueError(f"{where}: found {str(other)[:40]!r} in a part, expected text alone")
        part = _only(part, ("text", "refusal"), where)
    if not isinstance(part, str):
        raise ValueError(f"{where}: found a part that is not text")
    return part


def _parsed(value: Any, where: str) -> Any:
    """Return the value of a ``function_call`` message, which may be JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise ValueError(f"{where}: the tool call is not JSON: {error}") from None


def _calls(value: Any, where: str) -> Iterator[ToolCall]:
    """Yield the calls of a value: a call or a list of calls, ``{"name", "arguments"}``, alone or as ``function``."""
    calls = value if _is_list(value) else [value]
    if not calls:
        raise ValueError(f"{where}: found no tool call, expected an object with name and arguments")
    for number, call in enumerate(calls, start=1):
        place = f"{where}: tool call {number}" if len(calls) > 1 else f"{where}: tool call"
        name, arguments = _name_and_arguments(call, place)
        yield ToolCall(name, _arguments(arguments, f"{place} of {name[:40]!r}"))


def _name_and_arguments(call: Any, place: str) -> tuple[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    levels = [call] if function is None else [call, function]
    fields: dict[Any, Any] = {}
    for level in levels:
        if not isinstance(level, Mapping):
            raise ValueError(f"{place}: expected an object with name and arguments")
        for field, value in level.items():
            if field not in _CALL_FIELDS and not _is_empty(value):
                raise ValueError(f"{place}: found {str(field)[:40]!r}, expected name and arguments")
            if value is not None and fields.setdefault(field, value) != value and field in ("name", *_ARGUMENTS):
                raise ValueError(f"{place}: found {field} twice, with different values")
    name = fields.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{place}: expected an object with name and arguments")
    return name, _only(fields, _ARGUMENTS, place)


def _arguments(value: Any, where: str) -> str:
    """Return arguments as JSON text: a text as it is, and ``{}`` for arguments that are absent or empty."""
    if value is None or value == "":
        return "{}"
    if isinstance(value, str):
        try:
            parse_json(value)
        except ValueError as error:
            raise ValueError(f"{where}: the arguments are not JSON: {error}") from None
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"{where}: the arguments are not JSON") from None


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
