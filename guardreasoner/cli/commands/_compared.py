"""Runs that are compared, the same for ``compare`` and ``report``: the options that name them, how they are read."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from guardreasoner.cli.options import add_resampling
from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison import Comparison, Run, compare
from guardreasoner.evaluation.comparison.alignment import Answers
from guardreasoner.evaluation.comparison.criteria import DEMO, ROLES, Criterion, check_criteria
from guardreasoner.evaluation.reasoning_quality import faultless
from guardreasoner.evaluation.scoring.labels import Mode
from guardreasoner.sources.named_predictions import NamedPredictions, common_tasks, read_named_predictions


@dataclass(frozen=True, slots=True)
class Compared:
    """Runs that were read, compared and held against the plan's criteria.

    Args:
        named: the runs, with where they lie.
        comparison: of them.
        criteria: empty where they were not asked for.
    """

    named: tuple[NamedPredictions, ...]
    comparison: Comparison
    criteria: tuple[Criterion, ...]

    @property
    def seeds(self) -> dict[str, int]:
        """How many files each run has."""
        return {one.name: len(one.paths) for one in self.named}


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Declare the runs, and how they are compared."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]PATH[,PATH]",
        help="predictions as for score; several paths: the seeds of one run",
    )
    parser.add_argument(
        "--mode", choices=get_args(Mode), default="strict", help="what an unparsable answer is, as for score (strict)"
    )
    parser.add_argument(
        "--intersect", action="store_true", help="compare the records that all runs have, where they have not the same"
    )
    parser.add_argument(
        "--criteria",
        nargs="*",
        metavar="ROLE=NAME",
        help="check the two-stage plan's criteria; "
        + "; ".join(f"{role}: {what}" for role, what in ROLES.items())
        + " (runs named as in the demo need no ROLE=NAME)",
    )
    add_resampling(parser)


def read_compared(args: argparse.Namespace, verb: str) -> Compared:
    """Read the runs, compare them, check the criteria.

    Args:
        args: what :func:`add_runs` declares.
        verb: the command, for messages.

    Raises:
        InputError: a file, or what it holds, is wrong; other records; an unknown role or run.
    """
    named = read_named_predictions(args.runs, verb, seeds=True)
    runs = [Run(one.name, tuple(_answers(one))) for one in named]
    comparison = compare(runs, common_tasks(named), args.mode, args.intersect, args.resamples, args.seed)
    return Compared(tuple(named), comparison, tuple(_criteria(comparison, args, verb)))


def _answers(one: NamedPredictions) -> list[Answers]:
    names = one.paths if len(one.paths) > 1 else (one.name,)
    return [
        Answers(name, read.records, read.rollouts, read.hard_records, read.hard_rollouts)
        for name, read in zip(names, one.seeds, strict=True)
    ]


def _criteria(comparison: Comparison, args: argparse.Namespace, verb: str) -> list[Criterion]:
    """Check the criteria where they are asked for, or where the runs are called as in the demo."""
    if args.criteria is None and not all(name in comparison.scores for name in DEMO.values()):
        return []
    named = _roles(args.criteria or (), verb)
    roles = {role: name for role, name in DEMO.items() if name in comparison.scores} | named
    if not roles:
        raise InputError(
            f"{verb}: --criteria: no run is called as in the demo",
            "say which is which: --criteria rsft=NAME longer=NAME hsdpo=NAME",
        )
    return check_criteria(comparison, roles, _quality(comparison, roles), args.resamples, args.seed)


def _quality(comparison: Comparison, roles: Mapping[str, str]) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return the share of faultless reasoning by record, for R-SFT and for HS-DPO; None where one is missing."""
    runs = [roles[role] for role in ("rsft", "hsdpo") if roles.get(role) in comparison.scores]
    if len(runs) < 2:
        return None
    before, after = (faultless(comparison.files_of(run), comparison.tasks) for run in runs)
    return before, after


def _roles(words: Sequence[str], verb: str) -> dict[str, str]:
    roles = {}
    for word in words:
        role, parted, name = word.partition("=")
        if not parted or role not in ROLES:
            hint = "name the runs first, then --criteria rsft=NAME longer=NAME hsdpo=NAME"
            raise InputError(f"{verb}: --criteria: {word!r} is none of {'=NAME, '.join(ROLES)}=NAME", hint)
        if role in roles:
            raise InputError(f"{verb}: --criteria: {role} is given twice")
        roles[role] = name
    return roles
