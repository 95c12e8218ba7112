"""Verdicts in the forms that other guardrail libraries read: any-guardrail, NeMo Guardrails."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from guardreasoner.evaluation.scoring.readings import flagging_labels
from guardreasoner.guard.results import GuardResult, TaskResult, task_flags
from guardreasoner.prompts import parse
from guardreasoner.tasks import GUARD_TASKS, Task

Side = Literal["User", "Response"]
"""Whose message a verdict is about: that of the user or the response of the assistant."""


def any_guardrail_output(result: GuardResult, tasks: Sequence[Task], model: str | None = None) -> dict[str, Any]:
    """Return a result as the fields of any-guardrail's ``GuardrailOutput``.

    ``GuardrailOutput(**any_guardrail_output(result, guard.tasks))`` is the object. A category is a task that applies;
    an answer without a clear verdict is not valid, and ``extra`` says that it is unparsed.

    Args:
        result: the answer of a guard.
        tasks: tasks of the guard.
        model: name of the model.

    Source: https://github.com/mozilla-ai/any-guardrail, ``src/any_guardrail/types.py`` (version 0.7).
    """
    flagging = [result.tasks[task.name] for task in tasks if task.flags]
    scores = [one.score for one in flagging if one.score is not None]
    return {
        "valid": not result.flagged,
        "explanation": result.reasoning,
        "score": max(scores, default=None),
        "categories": [
            {
                "name": task.name,
                "description": task.question.strip(),
                "triggered": _triggered(result.tasks[task.name], task),
                "score": result.tasks[task.name].score,
            }
            for task in tasks
            if _applies(result.tasks[task.name])
        ],
        "action": "block" if result.flagged else None,
        "usage": {"model_id": model, "completion_tokens": result.tokens},
        "extra": {
            "unparsed": result.unparsed,
            "speed": result.speed,
            "tasks": {name: one.as_json() for name, one in result.tasks.items()},
        },
    }


def nemo_json(result: GuardResult, tasks: Sequence[Task]) -> str:
    """Return a result as a content-safety model of NVIDIA answers, which NeMo Guardrails reads.

    The parsers are ``nemoguard_parse_prompt_safety`` and ``nemoguard_parse_response_safety``. A side that no task
    judges is left out, and the parser of that side then fails, which blocks.

    Source: https://github.com/NVIDIA/NeMo-Guardrails, ``nemoguardrails/llm/output_parsers.py``.
    """
    values: dict[str, str] = {}
    for side in ("User", "Response"):
        found = [(task, result.tasks[task.name]) for task in tasks if _side(task, result, tasks) == side]
        if found:
            unsafe = any(task_flags(answer, task) for task, answer in found)
            values[f"{side} Safety"] = "unsafe" if unsafe else "safe"
    if named := _blocking(result, tasks):
        values["Safety Categories"] = ", ".join(named)
    return json.dumps(values)


def nemo_text(result: GuardResult, tasks: Sequence[Task]) -> str:
    """Return ``safe``, or ``unsafe`` and a line with the tasks, which the parser ``is_content_safe`` reads."""
    if not result.flagged:
        return "safe"
    return "\n".join(["unsafe", *([", ".join(named)] if (named := _blocking(result, tasks)) else [])])


def nemo_parse_prompt(completion: str, tasks: Sequence[Task] = GUARD_TASKS) -> list[bool | str]:
    """Parse the text of a guard for an input rail of NeMo Guardrails.

    Register it in the ``config.py`` of a configuration: ``app.register_output_parser(nemo_parse_prompt, NAME)``. The
    verdicts alone count here, not the scores and thresholds of a calibration.

    Returns:
        True if it is safe; else False and the names of the tasks that say otherwise. A text without a clear verdict is
        not safe.
    """
    return _parsed(completion, tasks, [task for task in tasks if task.flags and task.judges != "last_assistant"])


def nemo_parse_response(completion: str, tasks: Sequence[Task] = GUARD_TASKS) -> list[bool | str]:
    """Parse the text of a guard for an output rail of NeMo Guardrails, as :func:`nemo_parse_prompt` does for input."""
    return _parsed(completion, tasks, [task for task in tasks if task.flags and task.judges != "last_user"])


def _parsed(completion: str, tasks: Sequence[Task], deciding: Sequence[Task]) -> list[bool | str]:
    verdicts = parse(completion, tasks)  # of all tasks, since the lines of the others are part of the answer block
    unsafe = [
        task.name for task in deciding if verdicts[task.name] is None or verdicts[task.name] in flagging_labels(task)
    ]
    return [False, *unsafe] if unsafe or not deciding else [True]


def _applies(answer: TaskResult) -> bool:
    return answer.verdict is not None or answer.band is not None


def _triggered(answer: TaskResult, task: Task) -> bool | None:
    """Return whether an answer flags, or would if its task flagged any; None without a verdict."""
    return None if answer.verdict is None else task_flags(answer, task)


def _blocking(result: GuardResult, tasks: Sequence[Task]) -> list[str]:
    """Return the names of the tasks for which a conversation is flagged."""
    asked = [task for task in tasks if task.flags and _applies(result.tasks[task.name])]
    return [task.name for task in asked if task_flags(result.tasks[task.name], task)]


def _side(task: Task, result: GuardResult, tasks: Sequence[Task]) -> Side | None:
    """Return whose message a task judges; None if it does not apply, or does not flag.

    A task about the whole conversation belongs to the response if there is one.
    """
    if not task.flags or not _applies(result.tasks[task.name]):
        return None
    if task.judges in ("last_user", "last_assistant"):
        return "User" if task.judges == "last_user" else "Response"
    has_response = any(one.judges == "last_assistant" and _applies(result.tasks[one.name]) for one in tasks)
    return "Response" if has_response else "User"
