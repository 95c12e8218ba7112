"""What a guard is asked: a prompt and a response, or messages, and a policy, checked before a model sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.guard.results import GuardSpeed
from guardreasoner.records import Message, Record
from guardreasoner.sources.conversations import read_messages, require_unicode


@dataclass(frozen=True, slots=True)
class Query:
    """A conversation to judge: either ``prompt``, with or without ``response``, or ``messages``.

    Args:
        prompt: text of the user.
        response: text of the assistant; None if it has not answered yet.
        messages: messages, as :class:`~guardreasoner.records.Message` or in the form of OpenAI's API.
        policy: rules that the conversation is judged by, for a model that was trained with policies.
        speed: speed of this answer; None: that of the guard.
    """

    prompt: str | None = None
    response: str | None = None
    messages: Sequence[Message | Mapping[str, Any]] | None = None
    policy: str | None = None
    speed: GuardSpeed | None = None


def record_of_query(query: Query, where: str = "") -> Record:
    """Return the record of a query; its id is the hash of its content, so equal queries have equal ids.

    Args:
        query: the query.
        where: what stands before the name of an argument in messages, such as ``queries[3].``.

    Raises:
        InputError: an argument is missing, too many are given, or one is no text or no conversation.
    """
    policy = _text(query.policy, f"{where}policy")
    if policy is not None and not policy.strip():
        raise InputError(f"{where}policy: found an empty text, expected the rules or None")
    if query.messages is None:
        prompt, response = _text(query.prompt, f"{where}prompt"), _text(query.response, f"{where}response")
        if prompt is None:
            raise InputError(f"{where}prompt: missing, expected a prompt or messages")
        if not prompt.strip():
            raise InputError(f"{where}prompt: found an empty text, expected text")
        messages = [Message("user", prompt), *([] if response is None else [Message("assistant", response)])]
    else:
        for name, given in (("prompt", query.prompt), ("response", query.response)):
            if given is not None:
                raise InputError(f"{where}{name}: given beside messages, expected one of them")
        messages = list(_messages(query.messages, f"{where}messages"))
    record = Record("", messages=messages, policy=None if policy is None else policy.strip())
    return Record(record.content_key(), messages=record.messages, policy=record.policy)


def _text(value: object, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(f"{where}: found {type(value).__name__}, expected text")
    try:
        return require_unicode(value, where)
    except ValueError as error:
        raise InputError(str(error)) from None


def _messages(value: object, where: str) -> tuple[Message, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise InputError(f"{where}: found {type(value).__name__}, expected a list of messages")
    try:
        return read_messages([item.as_json() if isinstance(item, Message) else item for item in value])
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
