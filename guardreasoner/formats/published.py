"""What the published formats of other guards have in common."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, ClassVar

from guardreasoner.errors import InputError
from guardreasoner.formats import Alternative
from guardreasoner.prompts import Control, Part, Plain, Verdicts, parse, reasoning_of
from guardreasoner.records import Message, Record, Speed
from guardreasoner.tasks import GUARD_TASKS, POLICY_TASKS, Task

_BLOCK_TASKS = (*GUARD_TASKS, *POLICY_TASKS)
"""Tasks of GuardReasoner's own answer block, which the reasoning of a record may end with."""

Span = tuple[int, int]
"""Start and end of a word in an output."""

REQUEST, COMPLETION, RESPONSE = GUARD_TASKS


class PublishedFormat(ABC):
    """Format of a guard that answers each task with one of a few words.

    A subclass is a frozen dataclass whose fields are the options, with defaults.
    """

    speeds: ClassVar[tuple[Speed, ...]]
    end: ClassVar[str | None] = None

    @property
    @abstractmethod
    def tasks(self) -> tuple[Task, ...]:
        """Tasks that an output answers."""

    @property
    @abstractmethod
    def words(self) -> Mapping[str, Mapping[str, str]]:
        """By task, the label that each published word stands for; words are in lower case."""

    @abstractmethod
    def parts(self, record: Record, speed: Speed = "reasoned") -> tuple[Part, ...]:
        """Return the published prompt for a record.

        Raises:
            InputError: the format cannot ask about this record, or does not have the speed.
        """

    @abstractmethod
    def spans(self, completion: str) -> Mapping[str, Span]:
        """Return where each task's word stands in an output; nothing if the output does not have the published form."""

    @abstractmethod
    def answer(self, record: Record) -> str:
        """Return the output without reasoning that gives a record's labels.

        Raises:
            InputError: the record lacks a label that every output has.
        """

    @property
    def name(self) -> str:
        """Name of the format, for messages."""
        return type(self).__name__

    def has(self, speed: Speed) -> bool:
        """Return whether outputs of a speed exist in the format."""
        return speed in self.speeds

    def speed(self, wanted: Speed | None = None) -> Speed:
        """Return the speed to ask for: the wanted one, or else the default.

        Raises:
            InputError: the format does not have the wanted speed.
        """
        if wanted is not None and wanted not in self.speeds:
            raise InputError(f"model.speed: {wanted}, but {self.name} only has {' and '.join(self.speeds)} answers")
        return wanted or self.speeds[0]

    def text(self, record: Record, speed: Speed = "reasoned") -> str:
        """Return the prompt of a record as text, with its control tokens spelled out."""
        return "".join(part.text for part in self.parts(record, speed))

    def target(self, record: Record, speed: Speed = "reasoned") -> str:
        """Return the output that training teaches for a record.

        Reasoning that already is an output of this format is returned unchanged. The answer block of GuardReasoner at
        the end of the reasoning and the tags of a think block around it are left out.

        Raises:
            InputError: the record lacks a label or the reasoning, its reasoning contradicts a label, or a label below
                it could not be read.
        """
        if not self.has(speed):
            raise InputError(f"record {record.id}: {self.name} has no {speed} answers to train")
        if speed == "direct":
            return self.answer(record)
        if not record.reasoning:
            raise InputError(f"record {record.id}: no reasoning, which a reasoned answer of {self.name} has")
        own = self.parse(record.reasoning)
        is_output = any(own.values())
        if not is_output:
            block = parse(record.reasoning, _BLOCK_TASKS)
            own = {name: verdict for name, verdict in block.items() if name in own and verdict is not None}
        for task, label in record.gold().items():
            if task in own and own[task] != label:
                raise InputError(
                    f"record {record.id}: reasoning ends with {task}: {own[task]}, but the label is {label}"
                )
        if is_output:
            return record.reasoning.rstrip()
        reasoning = reasoning_of(record.reasoning, _BLOCK_TASKS)
        thought, end = think_block(reasoning)
        is_thought = end > 0 and not reasoning[end:].strip()
        output = self.reasoned(thought if is_thought else reasoning, self.answer(record))
        verdicts = self.parse(output)
        for task, label in record.gold().items():
            if verdicts.get(task, label) != label:
                raise InputError(
                    f"record {record.id}: {self.name} could not read {task}: {label} below this reasoning",
                    "remove the tags, channels and answers of the format from it, and a colon at its end",
                )
        return output

    def reasoned(self, reasoning: str, answer: str) -> str:
        """Return the output with reasoning before the answer."""
        return f"<think>\n{reasoning}\n</think>\n{answer}"

    def output_parts(self, completion: str) -> tuple[Part, ...]:
        """Return an output as the model writes it; tags of its think block are tokens where the tokenizer has them."""
        end = completion.rfind(_THOUGHT)
        start = completion.startswith(_THINK) * len(_THINK)
        opening = (Control(_THINK, optional=True),) if start else ()
        if end < 0:  # such as an output that ended in its reasoning
            return (*opening, Plain(completion[start:]))
        after = completion[end + len(_THOUGHT) :]
        return (*opening, Plain(completion[start:end]), Control(_THOUGHT, optional=True), Plain(after))

    def parse(self, completion: str) -> Verdicts:
        """Return the verdicts of an output, None for each task without a clear one."""
        spans = self.spans(completion)
        return {task.name: self._label(completion, task.name, spans.get(task.name)) for task in self.tasks}

    def reasoning(self, completion: str) -> str:
        """Return the text of the think block that an output begins with; empty if there is none."""
        return think_block(completion)[0]

    def alternatives(self, completion: str) -> Sequence[Alternative]:
        """Return an alternative for each label of each task that has a verdict in an output.

        No published word begins like another one of the same task, so the end of a word needs no mark.
        """
        verdicts = self.parse(completion)
        return [
            Alternative(task, label, completion[:start] + _with_case_of(completion[start:end], word), False)
            for task, (start, end) in self.spans(completion).items()
            if verdicts.get(task) is not None
            for word, label in self.words[task].items()
        ]

    def as_json(self) -> dict[str, Any]:
        """Return class and options as they are stored with a model."""
        cls = type(self)
        own = cls.__module__.startswith(f"{__package__}.")
        options = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        defaults = {f.name: f.default for f in fields(self) if f.default is not MISSING}  # type: ignore[arg-type]
        changed = {name: value for name, value in options.items() if name not in defaults or value != defaults[name]}
        return {"class": cls.__name__ if own else f"{cls.__module__}.{cls.__qualname__}", "init_args": changed}

    def require_no_policy(self, record: Record) -> None:
        """Raise ``InputError`` if a record has a policy, which this format has no place for."""
        if record.policy is not None:
            raise InputError(f"record {record.id}: has a policy, but the prompt of {self.name} has no place for one")

    def policy(self, record: Record) -> str:
        """Return the policy of a record; raise ``InputError`` if it has none."""
        if record.policy is None:
            raise InputError(f"record {record.id}: no policy, which {self.name} judges by")
        return record.policy

    def turns(self, record: Record, task: Task, authors: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return author and text of the messages up to and including the one that a task judges.

        Args:
            record: the record.
            task: the task; it judges the last message of the user or, otherwise, of the assistant.
            authors: published name of each role that the prompt has a place for.

        Raises:
            InputError: there is no message to judge, or a message before it has another role or calls a tool.
        """
        role = "user" if task.judges == "last_user" else "assistant"
        last = max((n for n, message in enumerate(record.messages) if message.role == role), default=None)
        if last is None or (role == "assistant" and record.response is None):
            raise InputError(f"record {record.id}: no message of the {role}, which {self.name} judges ({task.name})")
        return self.named(record, record.messages[: last + 1], authors)

    def named(self, record: Record, messages: Sequence[Message], authors: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return author and text of messages.

        Raises:
            InputError: a message has a role without a published name, or calls a tool.
        """
        for message in messages:
            if message.role not in authors or message.tool_calls:
                what = "a call of a tool" if message.role in authors else f"a message of the role {message.role}"
                raise InputError(f"record {record.id}: {what}, but the prompt of {self.name} has no place for one")
        return [(authors[message.role], message.content) for message in messages]

    def require_one_turn(self, record: Record) -> None:
        """Raise ``InputError`` if a record is more than a message of the user and an answer to it."""
        if not record.is_one_turn:
            raise InputError(f"record {record.id}: has several turns, but the prompt of {self.name} has place for one")

    def word(self, record: Record, task: Task, missing: str | None = None) -> str:
        """Return the published word for a record's label, in lower case.

        Args:
            record: the record.
            task: the task.
            missing: word for a record without a label; None: that is an error.

        Raises:
            InputError: the record has no label, or one that has no word.
        """
        label = record.labels.get(task.name)
        if label is None and missing is not None:
            return missing
        if label is None:
            raise InputError(f"record {record.id}: no label for {task.name}, which every output of {self.name} gives")
        if label not in self.words[task.name].values():
            known = ", ".join(self.words[task.name].values())
            raise InputError(
                f"record {record.id}: {task.name}: {label!r} is none of {known}, the labels of {self.name}"
            )
        return next(word for word, meaning in self.words[task.name].items() if meaning == label)

    def _label(self, completion: str, task: str, span: Span | None) -> str | None:
        return None if span is None else self.words[task].get(completion[span[0] : span[1]].casefold())


def think_block(completion: str, opened_by_prompt: bool = False) -> tuple[str, int]:
    """Return the reasoning that an output begins with, and where the answer after it begins.

    All of the output is reasoning, so that no answer is read, if the block is not closed, is closed more than once, or
    is closed without being opened.

    Args:
        completion: an output.
        opened_by_prompt: whether the prompt may end with the opening tag.
    """
    start = len(completion) - len(completion.lstrip())
    opened = completion.startswith(_THINK, start)
    start += len(_THINK) * opened
    closed = completion.count(_THOUGHT)
    if not (opened or closed):
        return "", 0
    if closed != 1 or not (opened or opened_by_prompt):
        return completion[start:].strip(), len(completion)
    end = completion.find(_THOUGHT)
    return completion[start:end].strip(), end + len(_THOUGHT)


def field_spans(text: str, start: int, fields: Mapping[str, str]) -> list[Span]:
    """Return where the value of each field stands in the lines "Key: value" of a text.

    Args:
        text: an output.
        start: where the lines begin.
        fields: by key in lower case, the regular expression of its values, in the order of the lines.

    Returns:
        A span for each field; nothing if a line is missing, at another place or something else.
    """
    spans: list[Span] = []
    permitted = iter(fields.items())
    for begin, end in _lines(text, start):
        key, colon, value = text[begin:end].partition(":")
        expected, values = next(permitted, ("", ""))
        if not colon or key.strip().casefold() != expected:
            return []
        if not re.fullmatch(values, value.strip(), re.IGNORECASE):
            return []
        last = begin + len(text[begin:end].rstrip())
        spans.append((last - len(value.strip()), last))
    return spans if len(spans) == len(fields) else []


def texts_and_controls(template: str, controls: Sequence[str], **texts: str) -> tuple[Part, ...]:
    """Return the parts of a published template: the given control tokens, and everything else as plain text.

    Args:
        template: text with control tokens and with slots such as ``{user}``.
        controls: spellings of the control tokens in it; a question mark after a spelling makes it optional.
        **texts: text of each slot. What a text spells stays text.
    """
    optional = {spelling.removesuffix("?"): spelling.endswith("?") for spelling in controls}
    marks = sorted([*optional, *(f"{{{slot}}}" for slot in texts)], key=len, reverse=True)
    parts: list[Part] = []
    rest = template
    while rest:
        found = [(place, mark) for mark in marks if (place := rest.find(mark)) >= 0]
        place, mark = min(found, key=lambda one: (one[0], -len(one[1])), default=(len(rest), ""))
        if place:
            parts.append(Plain(rest[:place]))
        if mark in optional:
            parts.append(Control(mark, optional[mark]))
        elif mark:
            parts.append(Plain(texts[mark[1:-1]]))
        rest = rest[place + len(mark) :]
    return tuple(parts)


_THINK, _THOUGHT = "<think>", "</think>"


def _lines(text: str, start: int) -> Iterator[Span]:
    """Yield start and end of each line that is not blank."""
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if text[start:end].strip():
            yield start, end
        start = end + 1


def _with_case_of(published: str, word: str) -> str:
    """Return a word in the case that a published word has: PASS, Yes or safe."""
    return (
        word.upper()
        if published.isupper() and len(published) > 1
        else (word.capitalize() if published[:1].isupper() else word)
    )
