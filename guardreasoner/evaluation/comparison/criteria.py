"""The success criteria of the two-stage plan, held against a comparison.

A criterion is met when the whole 95 % interval is on the right side of its bounds, not met when the whole interval is
on the wrong side; otherwise these data do not decide it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from operator import ge, gt, le, lt
from typing import Literal

import numpy as np

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison import Comparison
from guardreasoner.evaluation.intervals import RESAMPLES, Estimate, estimate, generator_for, resampled_sums

Verdict = Literal["met", "not met", "not decidable"]

ROLES: Mapping[str, str] = {
    "rsft": "the R-SFT model that HS-DPO started from",
    "longer": "R-SFT for three epochs",
    "hsdpo": "the HS-DPO model",
}

DEMO: Mapping[str, str] = {"rsft": "R-SFT, 3 epochs", "longer": "R-SFT, 3 epochs", "hsdpo": "HS-DPO"}
"""The run of each role in the demo, where HS-DPO starts from the longer R-SFT."""

_ENOUGH, _RISE, _MARGIN = 55.0, 5.0, 2.0  # percent, then percentage points


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion and what the data say.

    Args:
        name: what is asked, in words.
        verdict: what the data say.
        figure: what it was decided by, in percent or percentage points; None where there is none.
        missing: why there is no figure; empty where there is one.
        is_change: whether the figure is a difference.
    """

    name: str
    verdict: Verdict
    figure: Estimate | None
    missing: str = ""
    is_change: bool = True


def check(
    comparison: Comparison,
    roles: Mapping[str, str],
    quality: tuple[Sequence[float], Sequence[float]] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Criterion]:
    """Return the plan's criteria, each with its figure.

    Args:
        comparison: of the runs.
        roles: run by role; the roles are those of ``ROLES``, and any may be missing.
        quality: reasoning quality of the R-SFT and of the HS-DPO model, see :func:`quality_change`; None where it was
            not measured, or one of them is missing.
        resamples: for the interval of the quality.
        seed: of those.

    Raises:
        InputError: an unknown role or run.
    """
    for role, run in roles.items():
        if role not in ROLES:
            raise InputError(f"criteria: {role!r} is no role; there are {', '.join(ROLES)}")
        if run not in comparison.scores:
            raise InputError(f"criteria: {role}: there is no run {run!r} among {', '.join(comparison.scores)}")
    change = quality_change(*quality, resamples, seed) if quality else None
    return [
        _criterion("R-SFT: accuracy above 55 %", _accuracy(comparison, roles), _ENOUGH, inf, True, is_change=False),
        _criterion(
            "HS-DPO: hard-sample accuracy up by at least 5 points (5 to 10 are expected)",
            _gain(comparison, roles, "rsft", hard=True),
            *(_RISE, inf),
        ),
        _criterion(
            "HS-DPO: accuracy within 2 points of that of R-SFT", _gain(comparison, roles, "rsft"), -_MARGIN, _MARGIN
        ),
        _criterion(
            "HS-DPO: reasoning quality kept (at most 2 points lower)",
            change or _lacking(roles, "rsft", "hsdpo") or "reasoning quality was not measured",
            *(-_MARGIN, inf),
        ),
        _criterion(
            "HS-DPO: better than longer R-SFT on hard samples",
            _gain(comparison, roles, "longer", hard=True),
            *(0.0, inf),
            strictly=True,
        ),
        _criterion(
            "HS-DPO: better than longer R-SFT on all records",
            _gain(comparison, roles, "longer"),
            *(0.0, inf),
            strictly=True,
        ),
    ]


def quality_change(
    before: Sequence[float], after: Sequence[float], resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Return the mean change of a rate of reasoning quality, in percentage points, with its paired interval.

    Args:
        before: a record's rate under the first model, 0 to 1, in a fixed order of records.
        after: the same records' under the second.
        resamples: how often records are drawn.
        seed: of the draws.

    Raises:
        InputError: none, or not as many after as before, or a rate outside 0 to 1.
    """
    if not before or len(before) != len(after):
        raise InputError(f"reasoning quality: {len(before)} rates before and {len(after)} after; they belong in pairs")
    rates = np.array([before, after], dtype=np.float64)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise InputError("reasoning quality: a rate is not between 0 and 1")
    change = (rates[1] - rates[0])[:, None]
    sums = resampled_sums(change, resamples, generator_for(seed, "reasoning quality"))
    return estimate(100 * sums[:, 0] / len(before))


def decide(figure: Estimate, low: float, high: float, strictly: bool = False) -> Verdict:
    """Return "met" where the whole interval is within bounds, "not met" where it is outside, else "not decidable".

    Args:
        figure: with its interval; without one, nothing is decided.
        low: lower bound.
        high: upper bound.
        strictly: a bound itself is outside.
    """
    if figure.low is None or figure.high is None:
        return "not decidable"
    reaches, stays = (gt, lt) if strictly else (ge, le)
    if reaches(figure.low, low) and stays(figure.high, high):
        return "met"
    return "not decidable" if reaches(figure.high, low) and stays(figure.low, high) else "not met"


def _accuracy(comparison: Comparison, roles: Mapping[str, str]) -> Estimate | str:
    return comparison.scores[roles["rsft"]].accuracy if "rsft" in roles else "no run is named for rsft"


def _gain(comparison: Comparison, roles: Mapping[str, str], role: str, hard: bool = False) -> Estimate | str:
    """Return how much HS-DPO gains over another role's run, or why that is not known."""
    if absent := _lacking(roles, role, "hsdpo"):
        return absent
    pair = comparison.between(roles[role], roles["hsdpo"])
    if hard:
        return pair.hard or "not all runs have outputs on hard records"
    return pair.records.accuracy


def _lacking(roles: Mapping[str, str], *wanted: str) -> str:
    absent = [one for one in wanted if one not in roles]
    return f"no run is named for {' and '.join(absent)}" if absent else ""


def _criterion(
    name: str, figure: Estimate | str, low: float, high: float, strictly: bool = False, is_change: bool = True
) -> Criterion:
    if isinstance(figure, str) or figure.value is None:
        return Criterion(name, "not decidable", None, figure if isinstance(figure, str) else "undefined")
    return Criterion(name, decide(figure, low, high, strictly), figure, is_change=is_change)
