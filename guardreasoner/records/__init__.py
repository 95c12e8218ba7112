"""Data classes exchanged between stages, and their JSONL files."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from guardreasoner.errors import InputError
from guardreasoner.records.atomic_file import replacing_file
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.tasks import require_type

log = logging.getLogger("guardreasoner")

Split = Literal["train", "validation", "test"]

Role = Literal["system", "user", "assistant", "tool"]

Speed = Literal["reasoned", "direct"]
"""Whether a guard writes its reasoning before the verdicts, or the verdicts alone."""


ScoreKind = Literal["direct", "reasoned", "votes"]
"""Where the probability of a label comes from: an answer of this speed, or the share of sampled outputs with it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool by the assistant.

    Args:
        name: name of the tool.
        arguments: the arguments as JSON text, as the assistant wrote them.
    """

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Args:
        role: who wrote it.
        content: its text; may be empty if there are tool calls.
        tool_calls: calls of tools; only the assistant's messages have any.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the message in the form of OpenAI's API."""
        calls = [{"type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in self.tool_calls]
        return {"role": self.role, "content": self.content, **({"tool_calls": calls} if calls else {})}


@dataclass(frozen=True, slots=True, init=False)
class Record:
    """One conversation to classify.

    A conversation of one turn can be given as ``prompt`` and ``response``. Beside ``messages``, as in
    ``dataclasses.replace(record, prompt=text)``, they replace the texts of the last turn.

    Args:
        id: identifier, unique within a run; it does not change when records are added.
        prompt: text of the user.
        response: text of the assistant; None if there is none, or beside ``messages``, if it stays.
        labels: gold label by task name; a task that is absent or None has no gold label.
        reasoning: reasoning that leads to the verdicts, with or without an answer block; None if there is none.
        source: data set, or part of one, that the record comes from.
        messages: the messages in order.
        policy: rules that the conversation is judged by; None if there are none.
        language: language of the conversation as an ISO 639 code; None if it is unknown.
        extra: further columns by name, for scores by slice.

    Raises:
        TypeError: neither ``prompt`` nor ``messages`` is given.
    """

    id: str
    messages: tuple[Message, ...]
    labels: Mapping[str, str | None]
    reasoning: str | None
    source: str
    policy: str | None
    language: str | None
    extra: Mapping[str, str]

    def __init__(
        self,
        id: str,
        prompt: str | None = None,
        response: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        reasoning: str | None = None,
        source: str = "",
        *,
        messages: Iterable[Message] | None = None,
        policy: str | None = None,
        language: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        if messages is None:
            if prompt is None:
                raise TypeError("a Record needs a prompt or messages")
            messages = (Message("user", prompt),)
        elif prompt is not None:
            messages = _with_prompt(tuple(messages), prompt)
        if response is not None:
            messages = _with_response(tuple(messages), response)
        values = (id, tuple(messages), {} if labels is None else labels, reasoning, source, policy, language)
        for name, value in zip(_names(Record), (*values, {} if extra is None else extra), strict=True):
            object.__setattr__(self, name, value)

    @property
    def prompt(self) -> str:
        """Text of the last message of the user; empty if there is none."""
        return next((message.content for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def response(self) -> str | None:
        """Text of the last message if the assistant wrote it; else None."""
        last = self.messages[-1] if self.messages else None
        return last.content if last is not None and last.role == "assistant" else None

    @property
    def is_one_turn(self) -> bool:
        """Whether the conversation is a message of the user, with or without an answer, and nothing else."""
        roles = [message.role for message in self.messages]
        return roles in (["user"], ["user", "assistant"]) and not any(m.tool_calls for m in self.messages)

    def gold(self) -> dict[str, str]:
        """Return the gold labels that are not None, by task name."""
        return {task: label for task, label in self.labels.items() if label is not None}

    def with_texts(self, prompt: str | None = None, response: str | None = None) -> "Record":
        """Return the record with other texts in its last turn; None leaves a text as it is."""
        messages = self.messages if prompt is None else _with_prompt(self.messages, prompt)
        return replace(self, messages=messages if response is None else _with_response(messages, response))

    def content_key(self) -> str:
        """Return a hash of the messages and the policy, the identity of what is judged."""
        content = [self.policy, *(message.as_json() for message in self.messages)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def context(self) -> str:
        """Return the text that the response answers: the prompt or, after more turns, all messages before it.

        Contamination and splits compare it, so that conversations that differ in the response or in system messages
        alone stay together.
        """
        if self.is_one_turn:
            return self.prompt
        before = self.messages[:-1] if self.response is not None and len(self.messages) > 1 else self.messages
        return "\n".join(message.content for message in before if message.role != "system")

    def parts(self) -> list[tuple[str, str]]:
        """Return author and text of each part of the conversation, in order.

        The author is the role of a message or, for a call of a tool, "tool call". A message without text that calls
        tools has no part of its own.
        """
        parts: list[tuple[str, str]] = []
        for message in self.messages:
            if message.content or not message.tool_calls:
                parts.append((message.role, message.content))
            parts += [("tool call", f"{call.name} {call.arguments}") for call in message.tool_calls]
        return parts

    def texts(self) -> list[str]:
        """Return the policy, if there is one, and the text of each part of the conversation."""
        return [*([] if self.policy is None else [self.policy]), *(text for _, text in self.parts())]

    def as_json(self) -> dict[str, Any]:
        """Return the row of a JSONL file: ``prompt`` and ``response`` if there is one turn, else ``messages``."""
        if self.is_one_turn:
            texts: dict[str, Any] = {"prompt": self.prompt, "response": self.response}
        else:
            texts = {"messages": [message.as_json() for message in self.messages]}
        rest = {"policy": self.policy, "language": self.language, "extra": dict(self.extra) or None}
        return {
            "id": self.id,
            **texts,
            "labels": self.labels,
            "reasoning": self.reasoning,
            "source": self.source,
            **{name: value for name, value in rest.items() if value is not None},
        }


def _with_prompt(messages: tuple[Message, ...], prompt: str) -> tuple[Message, ...]:
    """Return the messages with another text in the last message of the user."""
    last = max((index for index, message in enumerate(messages) if message.role == "user"), default=None)
    if last is None:
        return (*messages, Message("user", prompt))
    return (*messages[:last], replace(messages[last], content=prompt), *messages[last + 1 :])


def _with_response(messages: tuple[Message, ...], response: str) -> tuple[Message, ...]:
    """Return the messages with another text in the assistant's last message, or with that message."""
    if messages and messages[-1].role == "assistant":
        return (*messages[:-1], replace(messages[-1], content=response))
    return (*messages, Message("assistant", response))


@dataclass(frozen=True, slots=True)
class Rollout:
    """One output of a model for a record. It has no verdicts, since there is more than one parser.

    Args:
        record_id: id of the record.
        model: name of the model.
        fingerprint: hash of the model's weights and tokenizer; if they are unknown, ``FILE_FINGERPRINT`` followed by
            the hash of the file with the output.
        index: index of the output among the k outputs, from 0.
        seed: seed of the run that sampled it.
        completion: generated text without special tokens.
        speed: whether the model was asked to reason first.
        truncated: whether the limit on its tokens ended it, so that the model has written no end token.
    """

    record_id: str
    model: str
    fingerprint: str
    index: int
    seed: int
    completion: str
    speed: Speed = "reasoned"
    truncated: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the row of a JSONL file, without ``speed`` and ``truncated`` if they have their defaults."""
        defaults = {"speed": "reasoned", "truncated": False}
        row = {name: getattr(self, name) for name in _names(Rollout)}
        return {name: value for name, value in row.items() if name not in defaults or value != defaults[name]}


FILE_FINGERPRINT = "file:"
"""Prefix of the fingerprint of a rollout if the weights of its model are unknown."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A hard record with one correct and one wrong output.

    Args:
        id: id of the record, with the suffix ``#1``, ``#2`` … if the record has several pairs.
        record: the conversation with its gold labels.
        chosen: a correct output.
        rejected: a wrong output.
        task: name of the graded task, or "all" if an output must match every gold label.
        rule: how chosen and rejected were picked, for example "random/random".
        excess_errors: number of wrong outputs minus number of correct outputs.
        weight: α = 1 + Norm(excess_errors, γ) (paper, equation 5).
        votes: whether each output is correct, ordered by model, fingerprint, seed and index.
    """

    id: str
    record: Record
    chosen: Rollout
    rejected: Rollout
    task: str
    rule: str
    excess_errors: int
    weight: float
    votes: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A rollout with its record and its parsed verdicts.

    Args:
        record: the conversation.
        rollout: the output.
        verdicts: label by task name; None if the output has no clear verdict.
        scores: probability by kind of score, task and label; the kinds are those of :data:`ScoreKind`.
    """

    record: Record
    rollout: Rollout
    verdicts: Mapping[str, str | None]
    scores: Mapping[ScoreKind, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    def to(self, device: object, **_: object) -> "Answer":
        """Return itself: the trainer moves predictions to a device, which fails for frozen dataclasses without this."""
        return self


def read_records(path: str | Path) -> list[Record]:
    """Read records from JSONL; raise ``InputError`` as :func:`iter_records`."""
    return list(iter_records(path))


def iter_records(path: str | Path) -> Iterator[Record]:
    """Yield records from JSONL.

    Raises:
        InputError: a field is missing, unknown or of the wrong type, an id occurs twice, or the file has no record.
    """
    seen: set[str] = set()
    for number, row in read_jsonl(path):
        record = record_of(row, f"{path}:{number}")
        _require_new_id(record, seen, str(path))
        yield record
    if not seen:
        raise InputError(f"{path}: the file has no record")


def read_rollouts(path: str | Path) -> list[Rollout]:
    """Read rollouts from JSONL; warn or raise ``InputError`` as :func:`iter_rollouts`."""
    return list(iter_rollouts(path))


def iter_rollouts(path: str | Path) -> Iterator[Rollout]:
    """Yield rollouts from JSONL. A truncated last line is skipped with a warning.

    Raises:
        InputError: a field is missing, unknown or of the wrong type, or the file has no rollout.
    """
    count, truncated = 0, list[int]()
    for number, row in read_jsonl(path, truncated.append):
        yield _build(Rollout, row, f"{path}:{number}")
        count += 1
    if not count:
        raise InputError(f"{path}: the file has no rollout")
    if truncated:
        where = f"{path}:{truncated[0]}"
        log.warning(f"{where}: truncated line skipped; {count:,} rollouts read")


def require_unique_ids(records: Iterable[Record], where: str) -> None:
    """Raise ``InputError`` if two records have the same id."""
    seen: set[str] = set()
    for record in records:
        _require_new_id(record, seen, where)


def _require_new_id(record: Record, seen: set[str], where: str) -> None:
    if record.id in seen:
        raise InputError(f"{where}: record id {record.id!r} occurs twice; ids must be unique")
    seen.add(record.id)


def write_jsonl(path: str | Path, rows: Iterable[Record | Rollout | Pair | Mapping[str, Any]]) -> int:
    """Write rows as JSONL, atomically; return the number of rows."""
    count = 0
    # An unpaired surrogate has no UTF-8 encoding; the error handler writes its JSON escape.
    with replacing_file(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as lines:
        for row in rows:
            lines.write(json.dumps(_as_dict(row), ensure_ascii=False, default=_as_dict) + "\n")
            count += 1
    return count


_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "prompt", "source", "record_id", "model", "fingerprint", "completion", "speed"), (str,)),
    **dict.fromkeys(("response", "reasoning", "policy", "language"), (str, type(None))),
    **dict.fromkeys(("index", "seed"), (int,)),
    "truncated": (bool,),
    **dict.fromkeys(("labels", "extra"), (dict,)),
    "messages": (list,),
}
_RECORD_FIELDS = (
    "id",
    "prompt",
    "response",
    "labels",
    "reasoning",
    "source",
    "messages",
    "policy",
    "language",
    "extra",
)


def _build(cls: type, row: Mapping[str, Any], where: str) -> Any:
    known = _RECORD_FIELDS if cls is Record else _names(cls)
    for name, value in row.items():
        if name not in known:
            raise InputError(f"{where}: unknown field {name!r}; a {cls.__name__} has {', '.join(sorted(known))}")
        if type(value) not in _TYPES[name]:  # not isinstance, for which a bool is an int
            allowed = " or ".join("null" if t is type(None) else t.__name__ for t in _TYPES[name])
            raise InputError(f"{where}: {name}: expected {allowed}, found {type(value).__name__}")
    if (speed := row.get("speed")) is not None and speed not in get_args(Speed):
        raise InputError(f"{where}: speed: found {speed!r}, expected {' or '.join(get_args(Speed))}")
    if "messages" in row:
        if texts := [name for name in ("prompt", "response") if name in row]:
            raise InputError(f"{where}: found messages and {texts[0]}, expected one of them")
        row = {**row, "messages": messages_of(row["messages"], f"{where}: messages")}
    require_policy_and_extra(row.get("policy"), row.get("extra"), where)
    try:
        return cls(**row)
    except TypeError:
        required = ("id", "prompt") if cls is Record else known
        absent = [name for name in required if name not in row]
        raise InputError(f"{where}: missing field {absent[0]!r}") from None


def record_of(row: Any, where: str) -> Record:
    """Return the record that :meth:`Record.as_json` wrote.

    Raises:
        InputError: the row has another form; ``where`` is the start of the message.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected an object, found {type(row).__name__}")
    record: Record = _build(Record, row, where)
    return record


def require_policy_and_extra(policy: str | None, extra: Mapping[str, Any] | None, where: str) -> None:
    """Raise ``InputError`` if a policy is empty, or if it or a further column is no Unicode text."""
    if policy is not None:
        require_type(policy, (str,), f"{where}: policy")
        if not policy.strip():
            raise InputError(f"{where}: policy: found an empty text, expected a policy or null")
    for name, value in (extra or {}).items():
        require_type(value, (str,), f"{where}: extra.{name}")


def messages_of(rows: Sequence[Any], where: str) -> tuple[Message, ...]:
    """Return the messages that :meth:`Message.as_json` wrote.

    Raises:
        InputError: a message has another form; ``where`` is the start of the message.
    """
    messages = []
    for number, row in enumerate(rows, start=1):
        try:
            calls = tuple(
                ToolCall(call["function"]["name"], call["function"]["arguments"]) for call in row.get("tool_calls", ())
            )
            message = Message(row["role"], row["content"], calls)
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"{where}: message {number}: expected an object with role and content") from None
        texts = (message.content, *(text for call in calls for text in (call.name, call.arguments)))
        if message.role not in get_args(Role) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{where}: message {number}: expected a role ({', '.join(get_args(Role))}) and a text")
        for text in texts:
            require_type(text, (str,), f"{where}: message {number}")
        messages.append(message)
    if not messages:
        raise InputError(f"{where}: found no message, expected at least one")
    return tuple(messages)


def _as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Record | Rollout):
        return value.as_json()
    kind: type = type(value)
    if not is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is not JSON serializable")
    return {name: getattr(value, name) for name in _names(kind)}


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))
