"""Answer conversations at their speeds; ``auto`` is a cascade: it reasons where the direct answer is unclear."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from guardreasoner.evaluation.calibration import Calibration
from guardreasoner.generators import Scorer, Watch
from guardreasoner.guard.answering import Answering
from guardreasoner.guard.results import GuardAnswer, GuardResult, GuardSpeed, TaskResult, interpret
from guardreasoner.records import Record, Speed
from guardreasoner.tasks import Task

UNSURE = 0.4
"""Distance from 0.5 within which a direct score is unclear, if no calibration has a review band."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation to judge.

    Args:
        record: the conversation.
        speed: the speed to judge it at.
        prompts: token ids of the prompt, by the speeds that may be needed.
    """

    record: Record
    speed: GuardSpeed
    prompts: Mapping[Speed, tuple[int, ...]]

    @property
    def key(self) -> tuple[str, GuardSpeed]:
        """What makes two conversations in a batch the same."""
        return self.record.id, self.speed


class Cascade:
    """Judges batches of conversations with one engine.

    Args:
        answering: asks the engine.
        tasks: tasks of the model.
        calibrations: calibrations of the model, at most one for each task and kind of score.
    """

    def __init__(self, answering: Answering, tasks: Sequence[Task], calibrations: Sequence[Calibration]) -> None:
        self._answering = answering
        self._tasks = tuple(tasks)
        self._calibrations = tuple(calibrations)

    def results(
        self,
        asked: Sequence[Asked],
        watches: Mapping[int, Watch] = MappingProxyType({}),
        scorer: Scorer | None = None,
    ) -> list[GuardResult]:
        """Return the result of each conversation, in order; equal ones are asked once.

        All direct answers are written first, then the reasoned ones.

        Args:
            asked: the conversations.
            watches: called with the text of a reasoned answer while it is written, by the index of the conversation.
            scorer: scores direct answers; None: the engine.

        Raises:
            InputError: the engine fails, or returns other outputs than were requested.
        """
        distinct = {one.key: one for one in asked}.values()
        direct = self._written([one for one in distinct if one.speed != "reasoned"], "direct", scorer=scorer)
        slow = {
            one.key: one
            for one in distinct
            if one.speed == "reasoned" or (one.speed == "auto" and self._is_unclear(direct[one.record.id]))
        }
        reasoned = self._written(slow.values(), "reasoned", _watches_by_record(asked, watches))
        results = {}
        for one in distinct:
            answers = reasoned if one.key in slow else direct
            answer = answers[one.record.id]
            if one.speed == "auto" and answers is reasoned:
                answer = replace(answer, tokens=answer.tokens + direct[one.record.id].tokens)
            results[one.key] = interpret(answer, self._tasks, self._calibrations)
        return [results[one.key] for one in asked]

    def _written(
        self,
        asked: Iterable[Asked],
        speed: Speed,
        watches: Mapping[str, Watch] = MappingProxyType({}),
        scorer: Scorer | None = None,
    ) -> dict[str, GuardAnswer]:
        """Return the answers of one speed by record id."""
        prompts = {one.record.id: (one.record, one.prompts[speed]) for one in asked}
        return self._answering.answers(prompts, speed, watches, scorer)

    def _is_unclear(self, answer: GuardAnswer) -> bool:
        """Return whether a direct answer leaves a task that flags unclear."""
        result = interpret(answer, self._tasks, self._calibrations)
        return any(_is_unclear(result.tasks[task.name]) for task in self._tasks if task.flags)


def _watches_by_record(asked: Sequence[Asked], watches: Mapping[int, Watch]) -> dict[str, Watch]:
    """Return a watch for each record that has some; it wants the answer as long as one of the record's queries does."""
    shared: dict[str, list[Watch]] = {}
    for index, watch in watches.items():
        if asked[index].speed != "direct":
            shared.setdefault(asked[index].record.id, []).append(watch)
    for index, one in enumerate(asked):
        if one.record.id in shared and index not in watches and one.speed != "direct":
            shared[one.record.id].append(lambda _: True)
    return {key: partial(_tell_all, some) for key, some in shared.items()}


def _tell_all(watches: Sequence[Watch], piece: str) -> bool:
    return sum(watch(piece) for watch in watches) > 0  # all are told, also after one that still wants more


def _is_unclear(result: TaskResult) -> bool:
    """Return whether a direct answer to a task needs reasoning: by its band, or else by its score."""
    if result.band is not None:
        return result.band in ("review", "unparsed")
    if result.verdict is None:  # the task does not apply
        return False
    return result.score is None or abs(result.score - 0.5) < UNSURE
