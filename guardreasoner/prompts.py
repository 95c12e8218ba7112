"""Render prompts and training targets, and parse verdicts from completions."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date as calendar_date
from typing import Any, ClassVar, get_args

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Speed
from guardreasoner.tasks import GUARD_TASKS, NO_VERDICT, Task, require_distinct, require_type, tasks_from_json

Verdicts = Mapping[str, str | None]
"""Verdict by task name; None if the text has no clear verdict for the task."""

Parser = Callable[[str, Sequence[Task]], Verdicts]


@dataclass(frozen=True, slots=True)
class Control:
    """A control token of a model, by its spelling.

    Args:
        text: the spelling, such as "<|eot_id|>".
        optional: whether it is plain text for a tokenizer that has no such token; otherwise that is an error.
    """

    text: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Plain:
    """Text that never becomes a control token, even if it spells one.

    Args:
        text: the text.
    """

    text: str


Part = Control | Plain
"""Part of a prompt or an output. Texts of records are always ``Plain``."""


REASONED_LINE = "You must think step by step. Keep consistency between the reasoning and the Answers."
"""Last line of the paper's instruction."""

DIRECT_LINE = "Answer at once, without reasoning."
"""Last line of the instruction if the verdicts are wanted alone."""

LAYOUT = "turns-1"
"""Name of the layout of policies and conversations, stored with a model; see :func:`conversation`."""


_STORED_TYPES: Mapping[str, tuple[type, ...]] = {
    "opening": (str, type(None)),
    "chat_template": (bool,),
    "date": (str, type(None)),
    "direct_line": (str,),
    "speeds": (list,),
}


@dataclass(frozen=True)
class PromptFormat:
    """Prompt format of a model, stored with the model so that training, mining and serving use the same prompts.

    Args:
        tasks: tasks of the model; empty: the three of GuardReasoner.
        opening: instruction at the start of the prompt; None: the paper's.
        chat_template: whether to wrap the prompt as a user message in the tokenizer's chat template; the released
            models use the raw text.
        speeds: speeds that the model was trained for, the default first; empty if that is not known.
        direct_line: last line of the instruction if the verdicts are wanted at once, without reasoning.
        date: date, as YYYY-MM-DD, that a chat template writes instead of today's, so that prompts are the same on every
            day; None: 2024-07-26.

    Raises:
        InputError: the date is no date, two tasks have one name or key, or ``direct_line`` is empty or not one line.
    """

    tasks: tuple[Task, ...] = ()
    opening: str | None = None
    chat_template: bool = False
    end: ClassVar[str | None] = None
    """Control token that ends an output; None: the tokenizer's end-of-sequence token."""

    date: str | None = field(default=None, repr=False)  # not in the key of cached ids, which has the ids of the frame
    direct_line: str = field(default=DIRECT_LINE, kw_only=True)
    speeds: tuple[Speed, ...] = field(default=(), kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks) or GUARD_TASKS)
        require_distinct(self.tasks)
        if len(self.direct_line.splitlines()) != 1 or not self.direct_line.strip():
            raise InputError(f"format.direct_line: found {self.direct_line!r}, expected one line of text")
        if self.date is not None:
            try:
                object.__setattr__(self, "date", calendar_date.fromisoformat(self.date).isoformat())
            except ValueError:
                raise InputError(f"format.date: {self.date!r} is not a date such as 2024-07-26") from None

    def as_json(self) -> dict[str, Any]:
        """Return the format as it is stored with a model; the date only where a chat template may write it."""
        stored = {
            "tasks": [task.as_json() for task in self.tasks],
            "opening": self.opening,
            "chat_template": self.chat_template,
            "direct_line": self.direct_line,
            "layout": LAYOUT,
            "speeds": list(self.speeds),
        }
        return stored | ({"date": self.date} if self.chat_template else {})

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "PromptFormat":
        """Return a stored format.

        Raises:
            InputError: the prompts of the model have a layout that this version does not know, or an option is missing
                or invalid.
        """
        if (layout := stored.get("layout", LAYOUT)) != LAYOUT:
            raise InputError(f"format.layout: found {layout!r}, expected {LAYOUT!r}", "update guardreasoner")
        if absent := [name for name in ("tasks", "opening", "chat_template") if name not in stored]:
            raise InputError(f"format: missing field {absent[0]!r}")
        for name, types in _STORED_TYPES.items():
            if name in stored:
                require_type(stored[name], types, f"format.{name}")
        for speed in stored.get("speeds", ()):
            if speed not in get_args(Speed):
                raise InputError(f"format.speeds: found {speed!r}, expected {' or '.join(get_args(Speed))}")
        tasks = tasks_from_json(stored["tasks"])
        options = {"direct_line": stored.get("direct_line", DIRECT_LINE), "speeds": tuple(stored.get("speeds", ()))}
        return cls(tasks, stored["opening"], stored["chat_template"], stored.get("date"), **options)

    def has(self, speed: Speed) -> bool:
        """Return whether outputs of a speed exist in the format, whatever a model was trained for: both do."""
        return True

    def speed(self, wanted: Speed | None = None) -> Speed:
        """Return the speed to ask for: the wanted one, or else the model's default.

        Raises:
            InputError: the model was not trained for the wanted speed.
        """
        if wanted is None:
            return next(iter(self.speeds), "reasoned")
        if self.speeds and wanted not in self.speeds:
            raise InputError(
                f"model.speed: {wanted}, but the model was trained for {' and '.join(self.speeds)} answers alone",
                "recipe.direct_share above 0 trains both" if wanted == "direct" else None,
            )
        return wanted

    def text(self, record: Record, speed: Speed = "reasoned") -> str:
        """Return the prompt text of a record."""
        return render(record, self.tasks, self.opening, self.direct_line if speed == "direct" else None)

    def parts(self, record: Record, speed: Speed = "reasoned") -> tuple[Part, ...]:
        """Return the prompt of a record without what the tokenizer puts around it: its text."""
        return (Plain(self.text(record, speed)),)

    def output_parts(self, completion: str) -> tuple[Part, ...]:
        """Return an output, which has no control tokens but its end."""
        return (Plain(completion),)

    def target(self, record: Record, speed: Speed = "reasoned") -> str:
        """Return the text that R-SFT trains: reasoning and answer block, or the answer block alone.

        Raises:
            InputError: ``speed`` is "reasoned", and the record has no reasoning or its reasoning contradicts a label.
        """
        return target(record, self.tasks) if speed == "reasoned" else direct_target(record, self.tasks)

    def parse(self, completion: str) -> Verdicts:
        """Return the verdicts of an output."""
        return parse(completion, self.tasks)

    def reasoning(self, completion: str) -> str:
        """Return the reasoning in an output; see :func:`reasoning_of`."""
        return reasoning_of(completion, self.tasks)


_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def instruction(tasks: Sequence[Task], last_line: str = REASONED_LINE) -> str:
    """Return the task description at the start of every prompt; for ``GUARD_TASKS`` it is exactly the released one."""
    count = _NUMBERS[len(tasks)] if len(tasks) < len(_NUMBERS) else str(len(tasks))
    questions = "\n".join(f"Task {number}: {task.question}" for number, task in enumerate(tasks, start=1))
    if any(task.uses_policy for task in tasks):
        given = "a policy, and a conversation between a human user and an AI assistant"
    else:
        given = "a request from a human user and a response from an AI assistant"
    return (
        "You are a classifier for analyzing interactions between humans and AI. \n\n"
        f"Given {given}, finish {count} task{'s' if len(tasks) > 1 else ''}.\n\n"
        f"{questions}\n\n"
        f"{last_line}\n"
    )


def conversation(record: Record) -> str:
    """Return a conversation as text, as a prompt contains it.

    One turn without a policy has the released layout: the texts of user and assistant as they are, with "None" for a
    missing response. Otherwise each message stands below a line with its author, a call of a tool below the message
    that makes it, and a line of a text that looks like such a line gets a backslash in front.
    """
    if record.is_one_turn and record.policy is None:
        response = NO_VERDICT if record.response is None else record.response
        return f"Human user:\n{record.prompt}\n\nAI assistant:\n{response}\n\n"
    texts = [f"{AUTHORS[author]}:\n{_escaped(text)}\n\n" for author, text in record.parts()]
    if record.messages[-1].role != "assistant":
        texts.append(f"AI assistant:\n{NO_VERDICT}\n\n")
    return "".join(texts)


def render(record: Record, tasks: Sequence[Task], opening: str | None = None, direct_line: str | None = None) -> str:
    """Return the prompt text: instruction, policy if there is one, and conversation.

    Args:
        record: the conversation to classify.
        tasks: tasks of the instruction.
        opening: instruction to use instead of the paper's; may be empty.
        direct_line: last line of the instruction, which asks for the verdicts alone; None asks for reasoning.
    """
    if opening is None:
        start = instruction(tasks, direct_line or REASONED_LINE)
    elif direct_line is None:
        start = opening
    else:
        start = f"{opening}{'' if not opening or opening.endswith(chr(10)) else chr(10)}{direct_line}\n"
    policy = "" if record.policy is None else f"Policy:\n{_escaped(record.policy)}\n\n"
    return f"{start}\n{policy}{conversation(record)}"


def answer_block(labels: Mapping[str, str | None], tasks: Sequence[Task]) -> str:
    """Return the answer block, with "None" for a task without a label."""
    return "\n".join(["Answers:", *(f"{task.key}: {labels.get(task.name) or NO_VERDICT}" for task in tasks)])


def target(record: Record, tasks: Sequence[Task]) -> str:
    """Return the training target of R-SFT: the reasoning, then the answer block.

    Reasoning that already ends with an answer block is returned unchanged, since the block may have verdicts for tasks
    without a gold label.

    Raises:
        InputError: the record has no reasoning, the answer block in it contradicts a gold label, or no verdict can be
            read from a block below it.
    """
    if not record.reasoning:
        raise InputError(
            f"record {record.id}: no reasoning",
            "a teacher model can write it: python -m guardreasoner predict --config configs/synthesize.yaml",
        )
    own = parse(record.reasoning, tasks)
    if all(verdict is None for verdict in own.values()):
        text = f"{record.reasoning.rstrip()}\n\n{answer_block(record.labels, tasks)}"
        verdicts = parse(text, tasks)
        if any(verdicts.get(task, label) != label for task, label in record.gold().items()):
            fault = "in an open think block" if _is_thinking(text) else "with an answer block without a clear verdict"
            raise InputError(
                f"record {record.id}: the reasoning ends {fault}, so the label below it could not be read",
                "remove that block from the reasoning, or close the think block",
            )
        return text
    for task, label in record.gold().items():
        if own.get(task) != label:
            raise InputError(
                f"record {record.id}: reasoning ends with {task}: {own.get(task)}, but the label is {label}"
            )
    return record.reasoning.rstrip()


def direct_target(record: Record, tasks: Sequence[Task]) -> str:
    """Return the answer block: gold labels and, for tasks without one, the verdicts in the record's reasoning."""
    own = parse(record.reasoning, tasks) if record.reasoning else {}
    return answer_block({**own, **record.gold()}, tasks)


def parse(completion: str, tasks: Sequence[Task]) -> Verdicts:
    """Parse the verdicts from the answer block at the end of the text, and from nothing else ("final-block").

    A block is an optional header ("Answers:", "# Answers") followed by fields ("Request: harmful"), one per line or
    separated by commas. Case and blank lines are ignored. The block extends upwards to its header, or to the first line
    that is not a field; adjacent blocks with headers count as one block, since it is unclear which of them is the
    answer. Everything before the block is reasoning, even if it quotes an answer. There is no block if other text
    follows it, or if a think block is not closed. The verdict of a task is None if its field is missing, has another
    value, or occurs with different values.

    The running time is linear in the length of the text, also for adversarial text.

    Args:
        completion: generated text.
        tasks: tasks to look for.

    Returns:
        A label or None for each task.
    """
    _, fields = _final_block([] if _is_thinking(completion) else completion.rstrip().splitlines(), tasks)
    return {task.name: _verdict(fields[task.name], task) for task in tasks}


def reasoning_of(completion: str, tasks: Sequence[Task]) -> str:
    """Return the text before the answer block that :func:`parse` reads; the whole text if there is none."""
    if _is_thinking(completion):
        return completion.rstrip()
    lines = completion.rstrip().splitlines(keepends=True)
    end, _ = _final_block(lines, tasks)
    return "".join(lines[:end]).rstrip()


def parse_released(completion: str, tasks: Sequence[Task]) -> Verdicts:
    """Parse the verdicts as the released script does: per task the first "Key: label" in the last 300 characters.

    Upper and lower case are alike. Only for reproducing published numbers, since it mistakes reasoning for answers; use
    :func:`parse` otherwise.
    """
    tail = completion[-300:]
    verdicts: dict[str, str | None] = {}
    for task in tasks:
        labels = "|".join(f"({re.escape(label)})" for label in task.labels)
        match = re.search(rf"{re.escape(task.key)}:\s*(?:{labels})", tail, re.IGNORECASE)
        verdicts[task.name] = task.labels[match.lastindex - 1] if match and match.lastindex else None
    return verdicts


PARSERS: dict[str, Parser] = {"final-block": parse, "released": parse_released}


AUTHORS = {
    "system": "System",
    "user": "Human user",
    "assistant": "AI assistant",
    "tool call": "Tool call",
    "tool": "Tool result",
}
"""Name of the author of a part of a conversation (:meth:`guardreasoner.records.Record.parts`), as prompts write it."""

LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""Characters that end a line of a conversation: the line feed, and others that some programs show as its end."""

_BREAKS = re.escape(LINE_BREAKS.removeprefix("\n"))


def headings(*names: str) -> re.Pattern[str]:
    """Return the pattern of the start of each line that begins with one of some names and a colon."""
    return re.compile(
        rf"(^|[{_BREAKS}])"
        # the space before a name holds no break, or each break of a long run of them would search the rest of the run
        rf"(?=[^\S\n{_BREAKS}]*\\*(?:{'|'.join(names)}):)",
        re.IGNORECASE | re.MULTILINE,
    )


def without_headings(text: str, pattern: re.Pattern[str]) -> str:
    """Return a text with a backslash in front of each line that a pattern of :func:`headings` matches."""
    return pattern.sub(r"\1\\", text)


_HEADINGS = headings(*AUTHORS.values(), "Policy")


def _escaped(text: str) -> str:
    """Return a text in which no line looks like the start of another part of the prompt."""
    return without_headings(text, _HEADINGS)


_HEADER = re.compile(r"(?:#+\s*)?answers?\s*:?", re.IGNORECASE)
_THINK, _THOUGHT = "<think>", "</think>"


def _final_block(lines: Sequence[str], tasks: Sequence[Task]) -> tuple[int, dict[str, set[str]]]:
    """Return the number of lines before the answer block, and the casefolded values of each field in it."""
    fields: dict[str, set[str]] = {task.name: set() for task in tasks}
    names = {task.key.casefold(): task.name for task in tasks}
    end, has_header = len(lines), False
    pending: list[tuple[str, str]] = []  # fields that belong to the block only if a header stands above them
    for index in range(len(lines) - 1, -1, -1):
        text = lines[index].strip()
        if not text:
            continue
        header = _HEADER.match(text)
        line_fields = _fields(text[header.end() :], names) if header else None
        if line_fields is None:  # a key may begin like the header
            header, line_fields = None, _fields(text, names)
        if line_fields is None:
            break
        pending += line_fields
        has_header |= header is not None
        if header or not has_header:
            end = index
            for name, value in pending:
                fields[name].add(value)
            pending = []
        if header and not any(fields.values()):
            break
    return end, fields


def _is_thinking(completion: str) -> bool:
    """Return whether the text ends inside a think block.

    Only a tag at the start of a line opens a block, since models write it there; elsewhere it is a quotation.
    """
    rest = completion.rpartition(_THOUGHT)[2]
    return _THINK in rest and any(line.lstrip().startswith(_THINK) for line in rest.splitlines())


def _fields(text: str, names: Mapping[str, str]) -> list[tuple[str, str]] | None:
    """Return (task name, value) of each field of a line; None if the line contains anything else.

    Keys are compared with ``str.casefold``: a case-insensitive regular expression also equates i and ı, which case
    folding does not.
    """
    text = text.strip().removesuffix(",")
    fields = []
    for part in text.split(",") if text else ():
        key, colon, value = part.partition(":")
        name = names.get(key.strip().casefold())
        if name is None or not colon or ":" in value:
            return None
        fields.append((name, value.strip().casefold()))
    return fields


def _verdict(values: set[str], task: Task) -> str | None:
    if len(values) != 1:
        return None
    value = next(iter(values))
    return next((label for label in task.labels if label.casefold() == value), None)
