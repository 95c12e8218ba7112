"""The prompt that a teacher gets for a labelled record, and the checks of the traces that it writes."""

import re
from collections.abc import Callable, Iterable, Sequence, Sized
from contextlib import suppress
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import read_reasoning, read_verdicts
from guardreasoner.prompts import PromptFormat, answer_block, conversation, instruction
from guardreasoner.records import Record
from guardreasoner.synthesis.trace import refusal
from guardreasoner.tasks import NO_VERDICT, Task
from guardreasoner.workflow.limited import LimitError, run_limited

STEP_PATTERN = r"^[^\w\n]*Reasoning Step (\d+)\b"
"""Heading of a reasoning step in the released traces and in the embedded records; the group is its number."""

_MAX_TEMPLATE_VALUE = 10_000_000
"""Maximum length of a prompt, and of a text or number that an operator of its template makes."""

_TEMPLATE_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What rendering a wrong template raises."""

PromptRenderer = Callable[[Record], str]

_TASK_HEADING = re.compile(r"^[^\S\n]*(?:#+|\*\*)[^\S\n]*Task\s+(\d+)\b.*$", re.IGNORECASE | re.MULTILINE)

_VERDICT = r"(?:label|verdict|classification|judge?ment|annotation)s?"
_GIVEN = r"(?:given|provided|supplied|assigned|stated|known|expected|correct|true|reference|target|predetermined)"
_LABEL_LEAKS = re.compile(
    "|".join(
        rf"\b{phrase}\b"
        for phrase in (
            r"ground[\s-]+truths?",
            r"gold(?:en)?(?:[\s-]+standard)?[\s-]+(?:label|answer|verdict|truth|annotation)s?",
            rf"{_GIVEN}\s+{_VERDICT}",
            # "the provided answer" alone may mean the assistant's response
            r"(?:correct|expected|known|reference)\s+answers?\s+(?:is|are|was|were|has\s+been|have\s+been)"
            r"(?:\s+already)?\s+(?:given|provided|known|stated)",
            r"answers?\s+(?:key|(?:I|we)\s+(?:was|were|am|are)\s+given)",
            r"(?:answer|verdict|label)s?\s+(?:that\s+)?(?:(?:is|are|was|were)\s+)?(?:already\s+)?"
            r"(?:given\s+to\s+(?:me|us)|known\s+in\s+advance|provided\s+(?:above|to\s+(?:me|us)))",
            # except "labeled as None", which is about an absent response
            r"""(?:is|are|was|were|been|as)\s+(?:already\s+)?labell?ed(?!\s+(?:as\s+)?["'“*]*none)""",
            rf"(?:match(?:es)?|according\s+to|based\s+on|consistent\s+with|in\s+line\s+with|align(?:s|ed)?\s+with)"
            rf"\s+(?:the|its)\s+{_VERDICT}",
            r"the\s+label\s+(?:is|says|states|indicates)",
            r"annotat(?:ed|ors?|ions?)",
            r"(?:I|we)\s+(?:was|were|am|are|have\s+been)\s+(?:told|instructed|asked)\s+(?:to\s+(?:reach|conclude|answer)"
            r"|that\s+the\s+(?:answer|verdict|label))",
        )
    ),
    re.IGNORECASE,
)

_TEMPLATE_NAMES = (
    *("instruction", "tasks", "record", "prompt", "response", "messages", "policy", "conversation"),
    *("labels", "known", "unknown", "answers"),
)


def compile_template(template: str, tasks: Sequence[Task]) -> PromptRenderer:
    """Return a function that renders the teacher's prompt for a record.

    Args:
        template: Jinja template, rendered in a sandbox. It may use ``instruction``, ``tasks``, ``record``, ``prompt``,
            ``response``, ``messages``, ``policy`` (None if there is none), ``conversation`` (all messages as the guard
            sees them), ``labels`` (gold labels by task name), ``known`` and ``unknown`` (tasks with and without a gold
            label) and ``answers`` (answer block with the gold labels). Other names are an error.
        tasks: tasks of the guard.

    Raises:
        InputError: raised if the template has a syntax error or takes too much time or memory, and by the returned
            function if rendering fails.
    """
    environment = _Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    instruction_text = instruction(tasks)

    def variables(record: Record) -> dict[str, Any]:
        gold = record.gold()
        return {
            "instruction": instruction_text,
            "tasks": tasks,
            "record": record,
            "prompt": record.prompt,
            "response": record.response,
            "messages": record.messages,
            "policy": record.policy,
            "conversation": conversation(record),
            "labels": gold,
            "known": [task for task in tasks if task.name in gold],
            "unknown": [task for task in tasks if task.name not in gold],
            "answers": answer_block(gold, tasks),
        }

    def try_out() -> None:
        with suppress(*_TEMPLATE_ERRORS):
            environment.from_string(template).render(variables(Record("sample", "a prompt", "a response")))

    try:
        run_limited(try_out)  # before compiling it here, since Jinja computes constants when it compiles
        compiled = environment.from_string(template)
    except TemplateSyntaxError as error:
        raise InputError(f"model.template: line {error.lineno}: {error.message}") from None
    except (LimitError, *_TEMPLATE_ERRORS) as error:
        raise InputError(f"model.template: {' '.join(str(error).split())}") from None

    def render(record: Record) -> str:
        try:
            return _joined(compiled.generate(variables(record)))
        except _TEMPLATE_ERRORS as error:
            raise InputError(
                f"model.template: record {record.id}: {' '.join(str(error).split())}",
                f"the template may use {', '.join(_TEMPLATE_NAMES)}",
            ) from None

    return render


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which an operator cannot make a text or number of unlimited size."""

    intercepted_binops = frozenset(("*", "**", "%", "+"))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if _size_after(operator, left, right) > _MAX_TEMPLATE_VALUE:
            raise SecurityError(f"the result of {operator} is longer than {_MAX_TEMPLATE_VALUE:,} characters or digits")
        return super().call_binop(context, operator, left, right)


def _size_after(operator: str, left: Any, right: Any) -> int:
    """Return an upper bound of the characters, elements or bits of a result."""
    if operator == "%" and isinstance(left, str):
        return max((int(number) for number in re.findall(r"\d+", left)), default=0)
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        return left.bit_length() * abs(right)
    if operator == "*" and isinstance(left, int) != isinstance(right, int):
        times, repeated = (left, right) if isinstance(left, int) else (right, left)
        return times * len(repeated) if isinstance(repeated, Sized) and isinstance(times, int) else 0
    if operator in ("*", "+"):
        return sum(value.bit_length() if isinstance(value, int) else _length(value) for value in (left, right))
    return 0


def _length(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else 0


def _joined(pieces: Iterable[str]) -> str:
    """Return the joined pieces of a prompt; raise ``SecurityError`` as soon as they are too long."""
    kept, length = [], 0
    for piece in pieces:
        kept.append(piece)
        length += len(piece)
        if length > _MAX_TEMPLATE_VALUE:
            raise SecurityError(f"the prompt is longer than {_MAX_TEMPLATE_VALUE:,} characters")
    return "".join(kept)


def faults(
    trace: str,
    record: Record,
    tasks: Sequence[Task],
    steps: str | None = STEP_PATTERN,
    finish_reason: str | None = None,
    format: GuardFormat | None = None,
) -> list[str]:
    """Return the reasons why a trace must not be used for training; an empty list if there are none.

    If a task has no gold label, any of its labels and None are accepted.

    Args:
        trace: reasoning and answer block, as the teacher wrote them.
        record: the conversation with its gold labels.
        tasks: tasks of the guard.
        steps: pattern of a step heading, with the step's number as its only group. Numbers must run from 1 under each
            task's heading. None skips this check.
        finish_reason: why the server ended the text.
        format: format of the trace; None: GuardReasoner's own.

    Returns:
        One string per reason; details follow a colon.
    """
    reasons = []
    if finish_reason == "length":
        reasons.append("cut off")
    if not trace.strip():
        return [*reasons, "empty answer"]
    own = format is None or isinstance(format, PromptFormat)
    verdicts, gold = read_verdicts(trace, tasks, format), record.gold()
    if not any(verdicts.values()) and (refused := refusal(trace)) is not None:
        return [*reasons, f"refusal: {refused}"]
    for task in tasks:
        verdict = verdicts[task.name]
        if task.name not in gold:
            if own and verdict is None and (answer := _invalid_answer(trace, task)) is not None:
                reasons.append(f"invalid label for {task.name}: {answer}")
        elif verdict is None:
            reasons.append(f"no verdict on {task.name}")
        elif verdict != gold[task.name]:
            reasons.append(f"wrong verdict on {task.name}")
    if not (_has_reasoning(trace, tasks) if own else read_reasoning(trace, tasks, format)):
        reasons.append("no reasoning")
    elif steps is not None and not has_numbered_steps(trace, steps):
        reasons.append("steps not numbered as asked")
    quotable = "\n".join(filter(None, (record.policy, conversation(record))))
    reasons += [f"leaks the label: {phrase}" for phrase in label_leaks(trace, quotable)]
    return reasons


def label_leaks(text: str, quotable: str = "") -> list[str]:
    """Return the phrases that show that the author of the reasoning was given the label.

    Args:
        text: reasoning.
        quotable: the conversation that the reasoning is about. Phrases that occur in it are not returned, because they
            may be quotations.

    Returns:
        The distinct phrases in lower case, in order of first occurrence.
    """
    quoted = _normalized(quotable)
    phrases = (_normalized(match[0]) for match in _LABEL_LEAKS.finditer(text))
    return [phrase for phrase in dict.fromkeys(phrases) if phrase not in quoted]


def has_numbered_steps(trace: str, steps: str = STEP_PATTERN) -> bool:
    """Return whether the steps under each task heading are numbered 1, 2, 3, …, with at least one under each.

    Text above the first heading needs no step, unless there are no headings.
    """
    pattern = re.compile(steps, re.IGNORECASE | re.MULTILINE)
    pieces = _TASK_HEADING.split(trace)
    # grouped by task number, because "# Task 1 Conclusion" belongs to task 1; "" is the text above the first heading
    numbers_by_task: dict[str, list[int | None]] = {}
    for task, piece in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        found = numbers_by_task.setdefault(task, [])
        found.extend(int(number) if number.isdecimal() else None for number in pattern.findall(piece))
    if not numbers_by_task[""] and len(numbers_by_task) > 1:
        del numbers_by_task[""]
    return all(numbers and numbers == list(range(1, len(numbers) + 1)) for numbers in numbers_by_task.values())


def heading_pattern(steps: str | None) -> re.Pattern[str] | None:
    """Return a pattern of the headings of a trace: of tasks and of steps; None if steps are not checked."""
    return None if steps is None else re.compile(f"{_TASK_HEADING.pattern}|{steps}", re.IGNORECASE | re.MULTILINE)


def check_step_pattern(steps: str) -> None:
    """Raise ``InputError`` unless a pattern is valid for :func:`has_numbered_steps`."""
    try:
        groups = re.compile(steps).groups
    except re.error as error:
        raise InputError(f"model.steps: {steps!r} is not a valid regular expression: {error}") from None
    if groups != 1:
        raise InputError(f"model.steps: {steps!r} must have one group, the number of the step; it has {groups}")


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split())


def _invalid_answer(trace: str, task: Task) -> str | None:
    """Return the last answer that a line gives to a task if it is neither a label nor None; otherwise None."""
    answers = re.findall(rf"(?:^|,)[^\S\n]*{re.escape(task.key)}\s*:[^\S\n]*([^,\n]*)", trace, re.I | re.M)
    answer = answers[-1].strip() if answers else NO_VERDICT
    return None if answer.casefold() in {label.casefold() for label in (*task.labels, NO_VERDICT)} else answer


def _has_reasoning(trace: str, tasks: Sequence[Task]) -> bool:
    keys = "|".join(re.escape(task.key) for task in tasks)
    # two adjacent \W* would take quadratic time on a long run of spaces
    empty = re.compile(rf"\W*(?:(?:Task\s+\d+|answers?|(?:{keys})\s*:.*)\W*)?", re.IGNORECASE)
    return any(not empty.fullmatch(line) for line in trace.splitlines())
