"""Outputs to grades, grades to votes, votes to what a group of outputs amounts to."""

from collections.abc import Mapping, Sequence
from typing import Literal

from guardreasoner.mining.pairing import Pairing, ParserName
from guardreasoner.prompts import PARSERS
from guardreasoner.records import Record
from guardreasoner.tasks import Task

Grades = dict[str, bool | None]
"""By task with a gold label: right, wrong, or None where the output gives no verdict."""

Ballots = dict[str, list[bool | None]]
"""By question, each output's vote: right, wrong or none. The questions stand in the order in which they may decide."""

Outcome = Literal["all right", "mixed", "all wrong", "too few"]


def grade(record: Record, completion: str, tasks: Sequence[Task], parser: ParserName = "final-block") -> Grades:
    """Return, for each task with a gold label, whether the output meets it; None where it gives no verdict."""
    verdicts = PARSERS[parser](completion, tasks)
    judged = [task.name for task in tasks if record.labels.get(task.name) is not None]
    return {name: None if verdicts[name] is None else verdicts[name] == record.labels[name] for name in judged}


def ballots(grades: Sequence[Grades], tasks: Sequence[Task], pairing: Pairing) -> Ballots:
    """Return the votes of a group of outputs: on all gold labels at once ("all"), or on each task.

    Args:
        grades: of each output of the group, at least one.
        tasks: what an output may answer.
        pairing: whether tasks are graded one by one, and whether an output without a verdict votes.
    """
    if pairing.graded == "all":
        found = {"all": [_all_right(one) for one in grades]}
    else:
        found = {name: [one[name] for one in grades] for name in grading_order(tasks) if name in grades[0]}
    if pairing.unparsable == "wrong":
        return {name: [bool(vote) for vote in votes] for name, votes in found.items()}
    return found


def outcome(ballots: Ballots) -> tuple[Outcome, str]:
    """Return what a group amounts to, and the question that decides it where it is mixed ("" where it is not)."""
    enough = {name: votes for name, votes in ballots.items() if sum(vote is not None for vote in votes) >= 2}
    for name, votes in enough.items():
        if True in votes and False in votes:
            return "mixed", name
    if not enough:
        return "too few", ""
    return ("all wrong" if any(False in votes for votes in enough.values()) else "all right"), ""


def grading_order(tasks: Sequence[Task]) -> list[str]:
    """Return the tasks' names in the order of the released miner: the response before the completion, then others."""
    first = ("request", "response", "completion")
    names = [task.name for task in tasks]
    return [name for name in first if name in names] + [name for name in names if name not in first]


def _all_right(grades: Mapping[str, bool | None]) -> bool | None:
    return None if None in grades.values() else all(grades.values())
