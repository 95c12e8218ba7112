"""Teacher synthesis: the prompt that a teacher gets for a labelled record, and what is wrong with its trace."""

import re
from collections.abc import Callable, Sequence

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from guardreasoner.errors import InputError
from guardreasoner.prompts import answer_block, conversation, instruction, parse
from guardreasoner.records import Record
from guardreasoner.tasks import NO_VERDICT, Task

STEPS = r"^[^\w\n]*Reasoning Step (\d+)\b"
"""How the released traces, and those of the embedded records, open a step; the group is its number."""

_TASK_HEADING = re.compile(r"^[^\S\n]*(?:#+|\*\*)[^\S\n]*Task\s+(\d+)\b.*$", re.IGNORECASE | re.MULTILINE)

_VERDICT = r"(?:label|verdict|classification|judge?ment|annotation)s?"
_SOMEBODYS = r"(?:given|provided|supplied|assigned|stated|known|expected|correct|true|reference|target|predetermined)"
_BETRAYALS = re.compile(
    "|".join(
        rf"\b{phrase}\b"
        for phrase in (
            r"ground[\s-]+truths?",
            r"gold(?:en)?(?:[\s-]+standard)?[\s-]+(?:label|answer|verdict|truth|annotation)s?",
            rf"{_SOMEBODYS}\s+{_VERDICT}",
            # "the provided answer" may be the assistant's; these are not
            r"(?:correct|expected|known|reference)\s+answers?\s+(?:is|are|was|were|has\s+been|have\s+been)"
            r"(?:\s+already)?\s+(?:given|provided|known|stated)",
            r"answers?\s+(?:key|(?:I|we)\s+(?:was|were|am|are)\s+given)",
            r"(?:answer|verdict|label)s?\s+(?:that\s+)?(?:(?:is|are|was|were)\s+)?(?:already\s+)?"
            r"(?:given\s+to\s+(?:me|us)|known\s+in\s+advance|provided\s+(?:above|to\s+(?:me|us)))",
            # not "labeled as None", which speaks of an absent response
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

_NAMES = (
    *("instruction", "tasks", "record", "prompt", "response", "conversation"),
    *("labels", "known", "unknown", "answers"),
)

Prompt = Callable[[Record], str]


def betrayals(text: str, quotable: str = "") -> list[str]:
    """Return the phrases of a trace by which it shows that its answer was given, each once, in the order they come.

    Args:
        text: reasoning.
        quotable: the conversation that it is about; a phrase that stands there too may be a quotation and is not told.
    """
    said = _plain(quotable)
    found = (_plain(match[0]) for match in _BETRAYALS.finditer(text))
    return [phrase for phrase in dict.fromkeys(found) if phrase not in said]


def faults(
    trace: str,
    record: Record,
    tasks: Sequence[Task],
    steps: str | None = STEPS,
    finish_reason: str | None = None,
) -> list[str]:
    """Return why a trace must not be learned from; nothing when it may.

    A task without a gold label may be answered with any of its labels, or with None.

    Args:
        trace: reasoning and answer block, as the teacher wrote it.
        record: the conversation with its gold labels.
        tasks: what is decided.
        steps: pattern with one group, the number of a step; numbers must run from 1, anew under each task's heading.
            None: steps are not looked at.
        finish_reason: why the server ended the text.

    Returns:
        Reasons; what varies within one stands behind a colon.
    """
    found = []
    if finish_reason == "length":
        found.append("cut off")
    verdicts, gold = parse(trace, tasks), record.gold()
    for task in tasks:
        verdict = verdicts[task.name]
        if task.name not in gold:
            if verdict is None and (word := _word(trace, task)) is not None:
                found.append(f"no permitted word for {task.name}: {word}")
        elif verdict is None:
            found.append(f"no verdict on {task.name}")
        elif verdict != gold[task.name]:
            found.append(f"other verdict on {task.name}")
    if not _has_reasoning(trace, tasks):
        found.append("no reasoning")
    elif steps is not None and not numbered(trace, steps):
        found.append("steps not numbered as asked")
    found += [f"betrays the answer: {phrase}" for phrase in betrayals(trace, conversation(record))]
    return found


def numbered(trace: str, steps: str = STEPS) -> bool:
    """Return whether steps run 1, 2, 3, … under each task's heading, at least one under each, and above the first."""
    pattern = re.compile(steps, re.IGNORECASE | re.MULTILINE)
    pieces = _TASK_HEADING.split(trace)
    # by task, as "# Task 1 Conclusion" still belongs to the first; what stands above all headings is nobody's
    runs: dict[str, list[int]] = {}
    for task, piece in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        runs.setdefault(task, []).extend(int(number) for number in pattern.findall(piece))
    if not runs[""] and len(runs) > 1:
        del runs[""]
    return all(run and run == list(range(1, len(run) + 1)) for run in runs.values())


def check_steps(steps: str) -> None:
    """Raise ``InputError`` unless a pattern can be used for :func:`numbered`."""
    try:
        groups = re.compile(steps).groups
    except re.error as error:
        raise InputError(f"model.steps: {steps!r} is no regular expression: {error}") from None
    if groups != 1:
        raise InputError(f"model.steps: {steps!r} must have one group, the step's number; it has {groups}")


def prompt_from(template: str, tasks: Sequence[Task]) -> Prompt:
    """Return what renders a teacher's prompt for a record.

    Args:
        template: Jinja, in a sandbox. It may use ``instruction``, ``tasks``, ``record``, ``prompt``, ``response``,
            ``conversation``, ``labels`` (gold by task name), ``known`` and ``unknown`` (tasks with and without a gold
            label) and ``answers`` (the block with the gold labels). A name that is none of them is an error.
        tasks: what is decided.

    Raises:
        InputError: the template cannot be read; when it is used, that it names something unknown.
    """
    environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        compiled = environment.from_string(template)
    except TemplateSyntaxError as error:
        raise InputError(f"model.template: line {error.lineno}: {error.message}") from None
    fixed = instruction(tasks)

    def render(record: Record) -> str:
        gold = record.gold()
        try:
            return compiled.render(
                instruction=fixed,
                tasks=tasks,
                record=record,
                prompt=record.prompt,
                response=record.response,
                conversation=conversation(record),
                labels=gold,
                known=[task for task in tasks if task.name in gold],
                unknown=[task for task in tasks if task.name not in gold],
                answers=answer_block(gold, tasks),
            )
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"model.template: record {record.id}: {' '.join(str(error).split())}",
                f"it may use {', '.join(_NAMES)}",
            ) from None

    return render


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _word(trace: str, task: Task) -> str | None:
    """Return the last word that a line gives as a task's answer, if it is neither a label nor None."""
    words = re.findall(rf"(?:^|,)[^\S\n]*{re.escape(task.key)}\s*:[^\S\n]*([^,\n]*)", trace, re.I | re.M)
    word = words[-1].strip() if words else NO_VERDICT
    return None if word.casefold() in {label.casefold() for label in (*task.labels, NO_VERDICT)} else word


def _has_reasoning(trace: str, tasks: Sequence[Task]) -> bool:
    keys = "|".join(re.escape(task.key) for task in tasks)
    empty = re.compile(rf"\W*(?:Task\s+\d+|answers?|(?:{keys})\s*:.*)?\W*", re.IGNORECASE)
    return any(not empty.fullmatch(line) for line in trace.splitlines())
