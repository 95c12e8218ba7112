"""Probabilities of labels in prediction rows: ``{"scores": {KIND: {TASK: {LABEL: p}}}}``."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from guardreasoner.errors import InputError
from guardreasoner.records import ScoreKind
from guardreasoner.tasks import Task

SCORE_KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)

LabelScores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Probabilities of one record by kind, task and label; a task that could not be scored is absent."""

ScoresByKind = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
"""Probabilities of several records by kind, record id, task and label."""

_ROUNDING = 0.01


def require_label_scores(scores: LabelScores, tasks: Sequence[Task], where: str) -> None:
    """Require that scores are probabilities of known labels.

    Those of ``direct`` and ``reasoned`` sum to 1 over a task's labels. The shares of ``votes`` may sum to less; the
    rest of the outputs is unparsed.

    Args:
        scores: probabilities of one record.
        tasks: tasks with their permitted labels.
        where: location of the scores, for messages.

    Raises:
        InputError: a kind, task or label is unknown, or a number is no probability.
    """
    permitted = {task.name: task.labels for task in tasks}
    for kind, by_task in scores.items():
        if kind not in SCORE_KINDS:
            raise InputError(f"{where}: scores: unknown kind {kind!r}, expected one of {', '.join(SCORE_KINDS)}")
        for task, by_label in by_task.items():
            place = f"{where}: scores.{kind}.{task}"
            if task not in permitted:
                raise InputError(f"{place}: unknown task, expected one of {', '.join(permitted)}")
            for label, value in by_label.items():
                if label not in permitted[task]:
                    raise InputError(f"{place}: {label!r} is none of {', '.join(permitted[task])}")
                if not 0 <= value <= 1:  # also refuses NaN
                    raise InputError(f"{place}.{label}: expected a probability from 0 to 1, found {value}")
            total = math.fsum(by_label.values())
            if total > 1 + _ROUNDING or (kind != "votes" and total < 1 - _ROUNDING):
                expected = "at most 1" if kind == "votes" else "1"
                raise InputError(f"{place}: expected a sum of {expected}, found {total:.4g}")


def scores_of_verdicts(scores: Mapping[Any, Any], verdicts: Mapping[str, str | None]) -> dict[Any, Any]:
    """Return the scores of an output without those of tasks for which it has no verdict.

    A score from log-probabilities says nothing about an output that cannot be read, which must never pass as safe.
    ``votes`` are shares of other outputs, and stay.

    Args:
        scores: probabilities of the record by kind, task and label.
        verdicts: verdicts of the output by task; None where it has none.
    """
    return {
        kind: by_task
        if kind == "votes"
        else {task: by_label for task, by_label in by_task.items() if verdicts.get(task) is not None}
        for kind, by_task in scores.items()
    }


def scores_by_kind(rows: Iterable[tuple[str, Mapping[Any, Mapping[str, Mapping[str, float]]]]]) -> ScoresByKind:
    """Return the scores of records, given as (record id, scores), by kind; a kind that no record has is absent."""
    by_kind: dict[str, dict[str, Mapping[str, Mapping[str, float]]]] = defaultdict(dict)
    for record_id, scores in rows:
        for kind, by_task in scores.items():
            by_kind[kind][record_id] = by_task
    return {kind: by_kind[kind] for kind in SCORE_KINDS if kind in by_kind}
