"""Explain the pairs of one record: each step of mining, as data."""

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import read_verdicts
from guardreasoner.mining.grading import (
    Grades,
    GroupOutcome,
    VotesByQuestion,
    classify_votes,
    grade,
    votes_by_question,
)
from guardreasoner.mining.pairing import Pairing
from guardreasoner.mining.pairs import MiningResult, ScalingScope, group_outputs, scaling_scope_key, sort_rollouts
from guardreasoner.prompts import Verdicts
from guardreasoner.records import Pair, Record, Rollout
from guardreasoner.tasks import Task

Vote = Literal["right", "wrong", "dropped", "not mined", "by task"]
"""Vote of an output; "by task" if tasks are graded one by one and none of them decides."""


@dataclass(frozen=True, slots=True)
class ExplainedOutput:
    """One output of the record.

    Args:
        rollout: the output.
        verdicts: the verdict that was read from it, by task.
        grades: whether the verdict is right, by task with a gold label.
        vote: what the output counts as.
    """

    rollout: Rollout
    verdicts: Verdicts
    grades: Grades
    vote: Vote


@dataclass(frozen=True, slots=True)
class ExplainedGroup:
    """The outputs that vote together.

    Args:
        model: name of the model; "" when all models are pooled.
        votes_by_question: for each question, the vote of each output.
        outcome: how the votes are classified.
        task: the question that decides; "" if the group is not mixed.
        excess_errors: wrong minus right votes on that question; None, like the next three, if the group is not mixed.
        scope_key: (model, source) over whose hard groups the weight is scaled; "" stands for all.
        scope: range of the excess errors of those groups.
        weight: weight of the group's pairs, if they are kept.
    """

    model: str
    votes_by_question: VotesByQuestion
    outcome: GroupOutcome
    task: str = ""
    excess_errors: int | None = None
    scope_key: tuple[str, str] | None = None
    scope: ScalingScope | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every step of mining for one record.

    Args:
        record: the conversation.
        outputs: all outputs, also those that were not mined, ordered by model, fingerprint, seed and index.
        groups: the groups of outputs that vote together; the pairs come from the first hard one.
        pairs: the pairs of the record.
        tasks: names of the tasks.
        pairing: the options.
        format: format of the outputs; None: GuardReasoner's own.
    """

    record: Record
    outputs: tuple[ExplainedOutput, ...]
    groups: tuple[ExplainedGroup, ...]
    pairs: tuple[Pair, ...]
    tasks: tuple[str, ...]
    pairing: Pairing
    format: GuardFormat | None = None


def explain(
    id_: str,
    result: MiningResult,
    records: Iterable[Record],
    rollouts: Iterable[Rollout],
    tasks: Sequence[Task],
    format: GuardFormat | None = None,
) -> Explanation:
    """Repeat the steps of mining for one record.

    Args:
        id_: id of the record, or of one of its pairs.
        result: result of :func:`guardreasoner.mining.mine` for the following three arguments.
        records: records with gold labels.
        rollouts: outputs for these records.
        tasks: tasks that an output may answer.
        format: format of the outputs; None: GuardReasoner's own.

    Raises:
        InputError: no record or pair has the id.
    """
    by_id = {record.id: record for record in records}
    if id_ not in by_id:
        record_of_pair = next((pair.record.id for pair in result.pairs if pair.id == id_), None)
        if record_of_pair is None:
            raise InputError(f"no record {id_!r} among the {len(by_id):,} that were mined", _similar_ids(id_, by_id))
        id_ = record_of_pair
    record, pairing = by_id[id_], result.pairing
    own = sort_rollouts(rollout for rollout in rollouts if rollout.record_id == id_)
    graded = [(rollout, grade(record, rollout.completion, tasks, pairing.parser, format)) for rollout in own]
    mined = [(rollout, grades) for rollout, grades in graded if pairing.includes(rollout.model, record.source)]
    vote_of: dict[int, Vote] = {}
    groups = []
    for model, outputs in group_outputs(mined, pairing.pool).items():
        votes = votes_by_question([grades for _, grades in outputs], tasks, pairing)
        group = _explain_group(model, record, votes, result)
        groups.append(group)
        question = group.task or ("all" if "all" in votes else "")
        for index, (rollout, _) in enumerate(outputs):
            vote_of[id(rollout)] = _vote_name(votes[question][index]) if question else "by task"
    verdicts = (read_verdicts(rollout.completion, tasks, format, pairing.parser) for rollout, _ in graded)
    return Explanation(
        record,
        tuple(
            ExplainedOutput(rollout, read, grades, vote_of.get(id(rollout), "not mined"))
            for (rollout, grades), read in zip(graded, verdicts, strict=True)
        ),
        tuple(groups),
        tuple(pair for pair in result.pairs if pair.record.id == id_),
        tuple(task.name for task in tasks),
        pairing,
        format,
    )


def _explain_group(model: str, record: Record, votes: VotesByQuestion, result: MiningResult) -> ExplainedGroup:
    outcome, task = classify_votes(votes)
    if not task:
        return ExplainedGroup(model, votes, outcome)
    deciding = [vote for vote in votes[task] if vote is not None]
    excess = len(deciding) - 2 * sum(deciding)
    key = scaling_scope_key(model, record, result.pairing)
    scope = result.scaling_scopes[key]
    weight = scope.weight(excess, result.pairing.gamma)
    return ExplainedGroup(model, votes, outcome, task, excess, key, scope, weight)


def _vote_name(vote: bool | None) -> Vote:
    return "dropped" if vote is None else "right" if vote else "wrong"


def _similar_ids(requested: str, known: Collection[str]) -> str:
    """Return a hint with ids that contain the requested one or resemble it."""
    containing = sorted(id_ for id_ in known if requested and requested in id_)[:3]
    similar = containing or difflib.get_close_matches(requested, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(similar)}?" if similar else f"ids are like {min(known, default='(none)')}"
