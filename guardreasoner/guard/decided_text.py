"""The text of an answer with the verdicts that the thresholds decide, for clients that read the text alone."""

from collections.abc import Sequence

from guardreasoner.evaluation.scoring.readings import flagging_labels
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.published import PublishedFormat
from guardreasoner.guard.results import GuardResult, TaskResult
from guardreasoner.prompts import PromptFormat, Verdicts, answer_block
from guardreasoner.tasks import Task


def decided_text(result: GuardResult, format: GuardFormat) -> str | None:
    """Return the completion of a result, with the verdicts changed that a band contradicts.

    In the band ``block``, the verdict becomes the most probable label that flags, and in ``review`` and ``pass`` the
    most probable one that does not. The reasoning stays as the guard wrote it, and may argue for the other verdict.

    Args:
        result: the result of a guard.
        format: format of the guard.

    Returns:
        The text; None if the verdicts cannot be changed in this format.
    """
    verdicts = {name: answer.verdict for name, answer in result.tasks.items()}
    wanted = {task.name: _decided(result.tasks[task.name], task) for task in format.tasks}
    if wanted == verdicts:
        return result.completion
    if isinstance(format, PromptFormat):
        reasoning = format.reasoning(result.completion)
        text: str | None = f"{reasoning}\n\n" * bool(reasoning) + answer_block(wanted, format.tasks)
    elif isinstance(format, PublishedFormat):
        text = _replaced(result.completion, wanted, format)
    else:
        text = None
    return text if text is not None and _agree(format.parse(text), wanted, format.tasks) else None


def _decided(answer: TaskResult, task: Task) -> str | None:
    """Return the verdict that agrees with the band of an answer: its own if it does, or if there is no band."""
    if not task.flags or answer.verdict is None or answer.band not in ("block", "review", "pass"):
        return answer.verdict
    flagging = flagging_labels(task)
    if (answer.verdict in flagging) == (answer.band == "block"):
        return answer.verdict
    labels = [label for label in task.labels if (label in flagging) == (answer.band == "block")]
    return max(labels, key=lambda label: answer.scores.get(label, 0.0))


def _replaced(completion: str, wanted: Verdicts, format: PublishedFormat) -> str | None:
    """Return a completion with other words for the verdicts; None if a word has no place in it."""
    for name, label in wanted.items():
        if label is None or format.parse(completion)[name] == label:
            continue
        texts = [one.text for one in format.alternatives(completion) if (one.task, one.label) == (name, label)]
        if not texts:
            return None
        completion = texts[0] + completion[format.spans(completion)[name][1] :]
    return completion


def _agree(verdicts: Verdicts, wanted: Verdicts, tasks: Sequence[Task]) -> bool:
    return all(verdicts[task.name] == wanted[task.name] for task in tasks if wanted[task.name] is not None)
