"""What a guard answers: a verdict, a score and a band for each task, and whether the conversation is flagged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration import Band, Calibration
from guardreasoner.evaluation.label_scores import Probabilities
from guardreasoner.evaluation.scoring.readings import flagging_labels, positive_probability
from guardreasoner.prompts import Verdicts
from guardreasoner.records import Record, Speed
from guardreasoner.tasks import Task

GuardSpeed = Literal["direct", "reasoned", "auto"]
"""How a guard answers: at once, with reasoning, or at once where that is clear and else with reasoning."""

UnparsedRule = Literal["block", "raise"]
"""What an answer without a clear verdict does: it flags the conversation, or raises :class:`UnparsedError`."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The answer to one task.

    Args:
        task: name of the task.
        verdict: the label that the guard wrote; None if it wrote no clear one, or if the task does not apply.
        score: probability of the positive label; of ordered labels, of all that the calibration counts as positive, or
            of all but the first; of a task whose other labels flag, of those. None without a verdict, or if the engine
            does not score.
        scores: probability by label; empty where ``score`` is None.
        threshold: score from which the band is ``block``; None without a calibration for the speed.
        band: band of the score; without a calibration only ``unparsed`` is known, which is a task that applies and has
            no verdict; None if the task does not apply.
    """

    task: str
    verdict: str | None
    score: float | None
    scores: Mapping[str, float]
    threshold: float | None
    band: Band | None

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {
            "verdict": self.verdict,
            "score": self.score,
            "threshold": self.threshold,
            "band": self.band,
            "scores": dict(self.scores),
        }


@dataclass(frozen=True, slots=True)
class GuardResult:
    """The answer to one conversation.

    Args:
        flagged: whether a task that flags has the band ``block`` or, without a calibration, a verdict that flags; or
            whether its verdict is missing.
        unparsed: whether a task that flags applies to the conversation and has no verdict. Such a result is flagged.
        tasks: result by task, in the order of the model's tasks.
        reasoning: the reasoning that the guard wrote; None if it wrote none.
        speed: the speed of the answer; of ``auto``, the one that decided.
        completion: the text that the guard wrote.
        tokens: number of generated tokens; of ``auto``, those of both answers.
    """

    flagged: bool
    unparsed: bool
    tasks: Mapping[str, TaskResult]
    reasoning: str | None
    speed: Speed
    completion: str
    tokens: int

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {
            "flagged": self.flagged,
            "unparsed": self.unparsed,
            "speed": self.speed,
            "tasks": {name: result.as_json() for name, result in self.tasks.items()},
            "reasoning": self.reasoning,
            "completion": self.completion,
            "tokens": self.tokens,
        }


class UnparsedError(InputError):
    """The guard's answer has no clear verdict for a task that flags, so nobody knows whether it is safe.

    Args:
        result: the result, which is flagged.
    """

    def __init__(self, result: GuardResult) -> None:
        missing = ", ".join(name for name, task in result.tasks.items() if task.band == "unparsed")
        super().__init__(f"the guard's answer has no clear verdict: {missing}")
        self.result = result


@dataclass(frozen=True, slots=True)
class GuardAnswer:
    """An answer of a guard, before it is interpreted.

    Args:
        record: the conversation.
        completion: the text that the guard wrote.
        speed: the speed that it was asked for.
        verdicts: the verdicts in the text.
        reasoning: the reasoning in the text; empty if there is none.
        tokens: number of generated tokens.
        probabilities: probability by task and label; None if the engine does not score.
    """

    record: Record
    completion: str
    speed: Speed
    verdicts: Verdicts
    reasoning: str
    tokens: int
    probabilities: Probabilities | None = None


def interpret(answer: GuardAnswer, tasks: Sequence[Task], calibrations: Iterable[Calibration]) -> GuardResult:
    """Return the result of an answer.

    Args:
        answer: the answer.
        tasks: tasks of the model.
        calibrations: calibrations of the model; those of another kind of score than the speed of the answer are not
            used.
    """
    used = {one.task: one for one in calibrations if one.score == answer.speed}
    results = {task.name: _task_result(answer, task, used.get(task.name)) for task in tasks}
    flagging = [task for task in tasks if task.flags]
    return GuardResult(
        flagged=any(task_flags(results[task.name], task) for task in flagging),
        unparsed=any(results[task.name].band == "unparsed" for task in flagging),
        tasks=MappingProxyType(results),
        reasoning=answer.reasoning or None,
        speed=answer.speed,
        completion=answer.completion,
        tokens=answer.tokens,
    )


def task_flags(result: TaskResult, task: Task) -> bool:
    """Return whether the answer to a task that flags flags the conversation."""
    if result.band is not None:
        return result.band in ("block", "unparsed")
    return result.verdict in flagging_labels(task)


def applies(task: Task, record: Record) -> bool:
    """Return whether a conversation has what a task judges."""
    if task.judges == "last_user":
        return any(message.role == "user" for message in record.messages)
    if task.judges == "last_assistant":
        return record.response is not None
    if task.judges == "tool_call":
        return any(message.tool_calls for message in record.messages)
    return True


def _task_result(answer: GuardAnswer, task: Task, calibration: Calibration | None) -> TaskResult:
    if not applies(task, answer.record):
        return TaskResult(task.name, None, None, MappingProxyType({}), None, None)
    if answer.probabilities is None:
        calibration = None
    verdict = answer.verdicts.get(task.name)
    scores = (answer.probabilities or {}).get(task.name, {}) if verdict is not None else {}
    if task.flags == "others":
        score = sum(scores[label] for label in flagging_labels(task)) if scores else None
    else:
        score = positive_probability(scores, task, (calibration.ordered if calibration else None) or "strict")
    band: Band | None = None
    if verdict is None:
        band = "unparsed"
    elif calibration is not None:
        band = calibration.band(score)
    threshold = None if calibration is None else calibration.block
    return TaskResult(task.name, verdict, score, MappingProxyType(dict(scores)), threshold, band)
