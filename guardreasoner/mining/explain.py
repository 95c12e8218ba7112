"""Why a record has the pairs that it has, or none: each step of mining for one record, as data."""

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from guardreasoner.errors import InputError
from guardreasoner.mining.grading import Ballots, Grades, Outcome, ballots, grade, outcome
from guardreasoner.mining.pairing import Pairing
from guardreasoner.mining.pairs import Mined, Scope, groups, in_order, scope_of
from guardreasoner.mining.weights import adaptive_weight
from guardreasoner.prompts import PARSERS, Verdicts
from guardreasoner.records import Pair, Record, Rollout
from guardreasoner.tasks import Task

Vote = Literal["right", "wrong", "dropped", "not mined", "by task"]
"""An output's vote; "by task" where tasks are graded one by one and none decides."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of the record.

    Args:
        rollout: the output.
        verdicts: what it says, by task.
        grades: whether that is right, by task with a gold label.
        vote: what it counts as.
    """

    rollout: Rollout
    verdicts: Verdicts
    grades: Grades
    vote: Vote


@dataclass(frozen=True, slots=True)
class Group:
    """Outputs that vote together.

    Args:
        model: whose; "" for all models'.
        ballots: by question, each output's vote.
        outcome: what they amount to.
        task: the question that decides, "" where none does.
        excess: wrong minus right votes on it; the next four are None, too, where none does.
        scope_of: the model and source over whose hard groups the weight is min–max, each "" for all.
        scope: how hard these groups are.
        weight: of the group's pairs, if they are kept.
    """

    model: str
    ballots: Ballots
    outcome: Outcome
    task: str = ""
    excess: int | None = None
    scope_of: tuple[str, str] | None = None
    scope: Scope | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that mining did with one record.

    Args:
        record: the conversation.
        outputs: all of them, also those that were not mined, by model, fingerprint, seed and index.
        groups: those that vote together, in the order in which their pairs are kept.
        pairs: what came of it.
        tasks: names of the tasks.
        pairing: the options.
    """

    record: Record
    outputs: tuple[Output, ...]
    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...]
    tasks: tuple[str, ...]
    pairing: Pairing


def explain(
    name: str, mined: Mined, records: Iterable[Record], rollouts: Iterable[Rollout], tasks: Sequence[Task]
) -> Explanation:
    """Go through the steps of mining for one record.

    Args:
        name: id of the record, or of one of its pairs.
        mined: what :func:`guardreasoner.mining.mine` made of the next three.
        records: with gold labels.
        rollouts: outputs on them.
        tasks: what an output may answer.

    Raises:
        InputError: no record has the id.
    """
    by_id = {record.id: record for record in records}
    if name not in by_id:
        of_pair = next((pair.record.id for pair in mined.pairs if pair.id == name), None)
        if of_pair is None:
            raise InputError(f"no record {name!r} among the {len(by_id):,} that were mined", _near(name, by_id))
        name = of_pair
    record, pairing = by_id[name], mined.pairing
    own = in_order(rollout for rollout in rollouts if rollout.record_id == name)
    graded = [(rollout, grade(record, rollout.completion, tasks, pairing.parser)) for rollout in own]
    taken = [(rollout, grades) for rollout, grades in graded if pairing.takes(rollout.model, record.source)]
    votes: dict[int, Vote] = {}
    found = []
    for model, group in groups(taken, pairing.pool).items():
        cast = ballots([grades for _, grades in group], tasks, pairing)
        found.append(_group(model, record, cast, mined))
        question = found[-1].task or ("all" if "all" in cast else "")
        for place, (rollout, _) in enumerate(group):
            votes[id(rollout)] = _vote(cast[question][place]) if question else "by task"
    parser = PARSERS[pairing.parser]
    return Explanation(
        record,
        tuple(
            Output(rollout, parser(rollout.completion, tasks), grades, votes.get(id(rollout), "not mined"))
            for rollout, grades in graded
        ),
        tuple(found),
        tuple(pair for pair in mined.pairs if pair.record.id == name),
        tuple(task.name for task in tasks),
        pairing,
    )


def _group(model: str, record: Record, cast: Ballots, mined: Mined) -> Group:
    result, task = outcome(cast)
    if not task:
        return Group(model, cast, result)
    votes = [vote for vote in cast[task] if vote is not None]
    excess = len(votes) - 2 * sum(votes)
    where = scope_of(model, record, mined.pairing)
    scope = mined.scopes[where]
    _, weight, _ = adaptive_weight([scope.least, excess, scope.most], mined.pairing.gamma).tolist()
    return Group(model, cast, result, task, excess, where, scope, weight)


def _vote(vote: bool | None) -> Vote:
    return "dropped" if vote is None else "right" if vote else "wrong"


def _near(name: str, known: Collection[str]) -> str:
    """Return a hint with ids that hold the name or are like it."""
    holding = sorted(one for one in known if name and name in one)[:3]
    near = holding or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"ids are like {min(known, default='(none)')}"
