"""Grade outputs against gold labels, turn grades into votes, and classify a group of votes."""

from collections.abc import Mapping, Sequence
from typing import Literal

from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import read_verdicts
from guardreasoner.mining.pairing import Pairing, ParserName
from guardreasoner.records import Record
from guardreasoner.tasks import Task

Grades = dict[str, bool | None]
"""Grades of one output, for each task with a gold label: right, wrong, or None if the output has no verdict."""

VotesByQuestion = dict[str, list[bool | None]]
"""For each question ("all", or the name of a task), the vote of each output: right, wrong, or None for no vote.

If several questions are mixed, the first one decides.
"""

GroupOutcome = Literal["all right", "mixed", "all wrong", "too few"]


def grade(
    record: Record,
    completion: str,
    tasks: Sequence[Task],
    parser: ParserName = "final-block",
    format: GuardFormat | None = None,
) -> Grades:
    """Compare the verdicts of an output with the gold labels.

    Args:
        record: the record.
        completion: the output.
        tasks: tasks that an output may answer.
        parser: how GuardReasoner's answer block is read.
        format: format of the output; None: GuardReasoner's own.

    Returns:
        For each task with a gold label: whether the verdict is right; None if the output has no verdict.
    """
    return grade_labels(record.labels, completion, tasks, parser, format)


def grade_labels(
    labels: Mapping[str, str | None],
    completion: str,
    tasks: Sequence[Task],
    parser: ParserName = "final-block",
    format: GuardFormat | None = None,
) -> Grades:
    """Do what :func:`grade` does, given the labels of the record by task."""
    verdicts = read_verdicts(completion, tasks, format, parser)
    labelled = [task.name for task in tasks if labels.get(task.name) is not None]
    return {name: None if verdicts[name] is None else verdicts[name] == labels[name] for name in labelled}


def votes_by_question(grades: Sequence[Grades], tasks: Sequence[Task], pairing: Pairing) -> VotesByQuestion:
    """Return the votes of a group of outputs: one question "all" for all gold labels at once, or one per task.

    Args:
        grades: grades of each output in the group; at least one output.
        tasks: tasks that an output may answer.
        pairing: ``graded`` selects the questions; ``unparsable`` selects whether an output without a verdict votes.
    """
    if pairing.graded == "all":
        votes = {"all": [_all_right(output) for output in grades]}
    else:
        votes = {name: [output[name] for output in grades] for name in grading_order(tasks) if name in grades[0]}
    if pairing.unparsable == "wrong":
        return {name: [bool(vote) for vote in column] for name, column in votes.items()}
    return votes


def classify_votes(votes: VotesByQuestion) -> tuple[GroupOutcome, str]:
    """Classify a group of outputs.

    Returns:
        The outcome, and the question that decides it if the group is mixed ("" otherwise).
    """
    comparable = {name: column for name, column in votes.items() if sum(vote is not None for vote in column) >= 2}
    for name, column in comparable.items():
        if True in column and False in column:
            return "mixed", name
    if not comparable:
        return "too few", ""
    return ("all wrong" if any(False in column for column in comparable.values()) else "all right"), ""


def grading_order(tasks: Sequence[Task]) -> list[str]:
    """Return the task names in the order of the released miner: request, response, completion, then the others."""
    first = ("request", "response", "completion")
    names = [task.name for task in tasks]
    return [name for name in first if name in names] + [name for name in names if name not in first]


def _all_right(grades: Mapping[str, bool | None]) -> bool | None:
    return None if None in grades.values() else all(grades.values())
