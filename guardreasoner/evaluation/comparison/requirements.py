"""Requirements of one's own on one figure of a run: "hsdpo: over-refusal <= 10"."""

import re
from collections.abc import Iterator, Mapping
from math import inf

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison import Comparison
from guardreasoner.evaluation.comparison.criteria import Criterion, decide
from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.scoring.over_refusal import rates

_FORM = re.compile(r"(?P<run>.+?): *(?P<figure>.+?) *(?P<sign>>=|<=) *(?P<bound>\d+(?:\.\d+)?)")


def check_requirement(text: str, comparison: Comparison) -> Criterion:
    """Return whether a run meets a requirement.

    Args:
        text: "RUN: FIGURE >= NUMBER" or "RUN: FIGURE <= NUMBER". A figure, in percent, is "accuracy" or
            "over-refusal"; or "f1", "recall" or "fpr" and a task or the reading of one, such as "f1 response (strict)",
            over all benchmarks. With ordered labels, "over-refusal" needs the reading too.
        comparison: comparison of the runs.

    Raises:
        InputError: the text has another form, or names an unknown run or figure.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"--require {text!r}: expected RUN: FIGURE >= NUMBER, or <=", "for example 'A: accuracy >= 80'"
        )
    run, figure, bound = match["run"], " ".join(match["figure"].split()), float(match["bound"])
    if run not in comparison.scores:
        raise InputError(f"--require {text!r}: unknown run {run!r}, expected one of {', '.join(comparison.scores)}")
    figures = dict(_figures(comparison, run))
    if figure not in figures:
        raise InputError(f"--require {text!r}: unknown figure {figure!r}, expected one of {', '.join(figures)}")
    value = figures[figure]
    bounds = (bound, inf) if match["sign"] == ">=" else (-inf, bound)
    name = f"{run}: {figure} {match['sign']} {bound:g}"
    if value.value is None:
        return Criterion(name, "not decidable", None, "undefined", of_plan=False)
    return Criterion(name, decide(value, *bounds), value, is_change=False, of_plan=False)


def _figures(comparison: Comparison, run: str) -> Iterator[tuple[str, Estimate]]:
    """Yield the figures of a run by name."""
    score = comparison.scores[run]
    yield "accuracy", score.accuracy
    for average in score.averages:
        for row in (average, *average.readings.values()):
            yield f"f1 {row.task}", row.positive_f1
            yield f"recall {row.task}", row.recall
            yield f"fpr {row.task}", row.false_positive_rate
    if comparison.over_refusal:
        yield from _refusal_figures(rates(comparison.over_refusal[run].rows[-1]))


def _refusal_figures(rate_by_task: Mapping[str, Estimate]) -> Iterator[tuple[str, Estimate]]:
    for task, rate in rate_by_task.items():
        yield "over-refusal" if len(rate_by_task) == 1 else f"over-refusal {task}", rate
