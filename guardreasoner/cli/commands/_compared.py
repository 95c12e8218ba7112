"""The runs that ``compare`` and ``report`` compare: their options, and how they are read."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from guardreasoner.cli.commands._attacked import attacked_notes, split_attacked
from guardreasoner.cli.options import add_resampling
from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison import Comparison, Run, compare
from guardreasoner.evaluation.comparison.alignment import Answers
from guardreasoner.evaluation.comparison.criteria import DEMO, ROLES, Criterion, check_criteria
from guardreasoner.evaluation.comparison.requirements import check_requirement
from guardreasoner.evaluation.reasoning_quality import faultless
from guardreasoner.evaluation.scoring.labels import Mode
from guardreasoner.sources.named_predictions import (
    NamedPredictions,
    common_tasks,
    match_by_content,
    read_named_predictions,
)


@dataclass(frozen=True, slots=True)
class Compared:
    """The runs, their comparison and the criteria of the two-stage plan.

    Args:
        named: the runs with their paths, without attacked records.
        comparison: the comparison of the runs.
        criteria: the checked criteria of the plan, then the user's own requirements; empty unless requested.
        notes: sentences on attacked records, which are left out.
    """

    named: tuple[NamedPredictions, ...]
    comparison: Comparison
    criteria: tuple[Criterion, ...]
    notes: tuple[str, ...] = ()

    @property
    def seeds(self) -> dict[str, int]:
        """Number of prediction files (seeds) of each run."""
        return {run.name: len(run.paths) for run in self.named}


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for the runs and their comparison."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]PATH[,PATH]",
        help="predictions, as for score; several paths are the seeds of one run",
    )
    parser.add_argument(
        "--mode",
        choices=get_args(Mode),
        default="strict",
        help="how to count an unparsable answer, as for score (default strict)",
    )
    parser.add_argument("--intersect", action="store_true", help="compare only the records that all runs have")
    parser.add_argument(
        "--criteria",
        nargs="*",
        metavar="ROLE=NAME",
        help="check the criteria of the two-stage plan; "
        + "; ".join(f"{role}: {what}" for role, what in ROLES.items())
        + " (not needed for runs named as in the demo)",
    )
    parser.add_argument(
        "--require",
        nargs="+",
        default=[],
        metavar="'RUN: FIGURE >= N'",
        help="check requirements of your own, as criteria: accuracy, over-refusal, f1 TASK, recall TASK or fpr TASK, "
        "in percent, >= or <= a number",
    )
    add_resampling(parser)


def read_compared(args: argparse.Namespace, verb: str) -> Compared:
    """Read the runs, compare them on the records that are not attacked, and check the criteria.

    Args:
        args: the arguments that :func:`add_runs` declares.
        verb: name of the command, for error messages.

    Raises:
        InputError: a file is missing or invalid, the runs have different records, or a role or run is unknown.
    """
    named, attacked = split_attacked(match_by_content(read_named_predictions(args.runs, verb, seeds=True)))
    runs = [Run(run.name, tuple(_answers(run))) for run in named]
    comparison = compare(runs, common_tasks(named), args.mode, args.intersect, args.resamples, args.seed)
    required = [check_requirement(text, comparison) for text in args.require]
    criteria = (*_criteria(comparison, args, verb), *required)
    return Compared(tuple(named), comparison, criteria, tuple(attacked_notes(attacked, "are left out")))


def _answers(run: NamedPredictions) -> list[Answers]:
    names = run.paths if len(run.paths) > 1 else (run.name,)
    return [
        Answers(name, read.records, read.rollouts, read.hard_records, read.hard_rollouts, read.format)
        for name, read in zip(names, run.seeds, strict=True)
    ]


def _criteria(comparison: Comparison, args: argparse.Namespace, verb: str) -> list[Criterion]:
    """Check the criteria if they are requested, or if the runs are named as in the demo."""
    if args.criteria is None and not all(name in comparison.scores for name in DEMO.values()):
        return []
    named = _roles(args.criteria or (), verb)
    roles = {role: name for role, name in DEMO.items() if name in comparison.scores} | named
    if not roles:
        raise InputError(
            f"{verb}: --criteria: no run is named as in the demo",
            "name the roles: --criteria rsft=NAME longer=NAME hsdpo=NAME",
        )
    return check_criteria(comparison, roles, _quality(comparison, roles), args.resamples, args.seed)


def _quality(comparison: Comparison, roles: Mapping[str, str]) -> tuple[list[list[float]], list[list[float]]] | None:
    """Return faultless reasoning by seed and record, for R-SFT and for HS-DPO; None if a run is missing."""
    runs = [roles[role] for role in ("rsft", "hsdpo") if roles.get(role) in comparison.scores]
    if len(runs) < 2:
        return None
    before, after = (faultless(comparison.files_of(run), comparison.tasks) for run in runs)
    return before, after


def _roles(assignments: Sequence[str], verb: str) -> dict[str, str]:
    roles = {}
    for assignment in assignments:
        role, equals, name = assignment.partition("=")
        if not equals or role not in ROLES:
            hint = "name the runs first, then --criteria rsft=NAME longer=NAME hsdpo=NAME"
            raise InputError(f"{verb}: --criteria: expected {'=NAME, '.join(ROLES)}=NAME, got {assignment!r}", hint)
        if role in roles:
            raise InputError(f"{verb}: --criteria: {role} is given twice")
        roles[role] = name
    return roles
