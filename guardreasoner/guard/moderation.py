"""Judge the conversations of logs, by one guard or by two whose answers are compared."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.evaluation.scoring.readings import flagging_labels
from guardreasoner.guard import Guard, GuardResult, Query
from guardreasoner.guard.results import GuardSpeed
from guardreasoner.records import Record
from guardreasoner.sources.logs import LogRow
from guardreasoner.tasks import Task

_CONTENT = 16
"""Hex digits of the hash by which equal conversations are recognized."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A guard at one speed.

    Args:
        guard: the guard.
        speed: speed of its answers; None: the guard's own.
    """

    guard: Guard
    speed: GuardSpeed | None = None

    def results(self, records: Sequence[Record]) -> list[GuardResult | str]:
        """Return the result of each record, or why the guard cannot judge it.

        Raises:
            InputError: the engine failed, which is the fault of no record.
        """
        queries = [Query(messages=record.messages, policy=record.policy, speed=self.speed) for record in records]
        try:
            return list(self.guard.check_many(queries))
        except InputError:
            refused = dict(self._refused(queries))
            if not refused:
                raise
        judged = iter(self.guard.check_many([q for number, q in enumerate(queries) if number not in refused]))
        return [refused[number] if number in refused else next(judged) for number in range(len(queries))]

    def _refused(self, queries: Sequence[Query]) -> Iterator[tuple[int, str]]:
        for number, query in enumerate(queries):
            try:
                self.guard.require(query)
            except InputError as error:
                yield number, str(error)


def judged_rows(
    rows: Iterable[LogRow], judge: Judge, second: Judge | None = None, chunk: int = 2048, with_texts: bool = False
) -> Iterator[list[dict[str, Any]]]:
    """Yield the output rows of chunks of conversations.

    The rows of a chunk do not depend on earlier chunks, so a run can be continued after any of them.

    Args:
        rows: the conversations.
        judge: the guard whose answer counts.
        second: a guard that is asked too; the rows state its answer and how far the two disagree.
        chunk: conversations that are judged together.
        with_texts: whether the rows hold the conversation and the guard's reasoning.
    """
    remaining = iter(rows)
    while batch := list(islice(remaining, chunk)):
        records = [row.record for row in batch]
        first = judge.results(records)
        others = second.results(records) if second else [None] * len(batch)
        tasks = judge.guard.tasks
        yield [
            _row(row, result, other, tasks, with_texts) for row, result, other in zip(batch, first, others, strict=True)
        ]


def disagreement(first: GuardResult, second: GuardResult, tasks: Sequence[Task]) -> float:
    """Return how far two answers disagree, from 0 to 1: the largest difference over the tasks that flag.

    The difference of a task is that of the two scores or, if a score is missing, 1 if the verdicts differ.
    """
    found = 0.0
    for task in tasks:
        one, other = first.tasks.get(task.name), second.tasks.get(task.name)
        if not task.flags or one is None or other is None:
            continue
        if one.score is not None and other.score is not None:
            found = max(found, abs(one.score - other.score))
        else:
            flagging = flagging_labels(task)
            sides = {None if answer.verdict is None else answer.verdict in flagging for answer in (one, other)}
            found = max(found, float(len(sides) > 1))
    return found


def _row(
    row: LogRow, result: GuardResult | str, other: GuardResult | str | None, tasks: Sequence[Task], with_texts: bool
) -> dict[str, Any]:
    content = row.record.content_key()[:_CONTENT]
    values = {"id": row.record.id, "row": row.place, "content": content, **_answer(result, with_texts)}
    if other is not None:
        values["second"] = _answer(other, with_texts)
        if isinstance(result, GuardResult) and isinstance(other, GuardResult):
            values["disagreement"] = disagreement(result, other, tasks)
        else:
            values["disagreement"] = None
    if with_texts:
        record = row.record.as_json()
        names = ("prompt", "response", "messages", "policy")
        values |= {name: record[name] for name in names if name in record}
    return values


def _answer(result: GuardResult | str, with_texts: bool) -> dict[str, Any]:
    """Return the answer as JSON. One that it cannot judge is flagged: nobody knows that it is safe."""
    if isinstance(result, str):
        return {"flagged": True, "unparsed": True, "speed": None, "error": result, "tasks": {}}
    values = {name: value for name, value in result.as_json().items() if name not in ("completion", "reasoning")}
    return {**values, **({"reasoning": result.reasoning} if with_texts else {})}


def row_score(row: Mapping[str, Any], tasks: Sequence[Task]) -> float | None:
    """Return the highest score of an output row over the tasks that flag; None if it has none."""
    scores = [row["tasks"][task.name]["score"] for task in tasks if task.flags and task.name in row["tasks"]]
    return max((score for score in scores if score is not None and not math.isnan(score)), default=None)
