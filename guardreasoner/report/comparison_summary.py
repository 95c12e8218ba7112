"""One-sentence summary of a comparison: whether the last run is better than its nearest baseline, with details."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guardreasoner.evaluation.comparison import Comparison, Difference, Pairwise
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.scoring import AVERAGE

Tone = Literal["better", "worse", "open"]


@dataclass(frozen=True, slots=True)
class ComparisonSummary:
    """Summary of a comparison.

    Args:
        tone: "better" or "worse" if the 95 % interval of the difference excludes 0, else "open".
        headline: One sentence.
        details: The differences, one sentence each.
    """

    tone: Tone
    headline: str
    details: tuple[str, ...]


def nearest_baseline(comparison: Comparison) -> str:
    """Return the name of the run to compare the last one with: the most accurate of the others, the latest of equals.

    A new model that only beats a weak baseline has not improved on what one already has.
    """
    names = list(comparison.scores)[:-1]
    accuracies = [comparison.scores[name].accuracy.value for name in names]
    ranked = [(-1.0 if value is None else value, place) for place, value in enumerate(accuracies)]
    return names[max(ranked)[1]]


def summarize_comparison(comparison: Comparison, criteria: Sequence[Criterion] = ()) -> ComparisonSummary:
    """Compare the last run with its nearest baseline by the share of records with every verdict right.

    What got worse comes before the comparisons with the other runs.

    Args:
        comparison: Comparison of two or more runs.
        criteria: Checked criteria of the two-stage plan; may be empty.
    """
    last_name, base_name = list(comparison.scores)[-1], nearest_baseline(comparison)
    base, last = comparison.scores[base_name], comparison.scores[last_name]
    pair = comparison.between(base_name, last_name)
    change = pair.records.accuracy
    tone = _tone(change)
    details = []
    if change.value is not None:
        p = pair.records.flips.p
        test = "" if p is None else f"; exact McNemar test p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
        whole = f"{'the parsed answers to ' if comparison.mode == 'drop' else ''}{last.records:,} records"
        shares = f"{_percent(last.accuracy)} of {whole}, against {_percent(base.accuracy)}"
        details.append(f"Every verdict right: {shares}: {_points(change)}{test}.")
    if pair.records.f1.value is not None:
        details.append(f"F1 of the positive class, mean over tasks: {_points(pair.records.f1)}.")
    if pair.hard is not None and pair.hard.value is not None and base.hard and last.hard:
        shares = f"{_percent(last.hard.accuracy)} of the outputs right, against {_percent(base.hard.accuracy)}"
        details.append(f"Hard records: {shares}: {_points(pair.hard)}.")
    if change.value is not None:
        details.append(_worse(pair, _unparsed(comparison, last_name) - _unparsed(comparison, base_name)))
    others = [name for name in comparison.scores if name not in (base_name, last_name)]
    details += [_against(comparison, name, last_name) for name in reversed(others)]
    if criteria:
        counts = Counter(criterion.verdict for criterion in criteria)
        parts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("met", "not met", "not decidable"))
        of_plan = all(criterion.of_plan for criterion in criteria)
        details.append(f"Criteria{' of the two-stage plan' if of_plan else ''}: {parts}.")
    return ComparisonSummary(tone, _headline(base_name, last_name, change, tone), tuple(details))


def _unparsed(comparison: Comparison, name: str) -> float:
    """Return the number of unparsed answers of a run, the mean over its seeds."""
    return comparison.scores[name].unparsed / len(comparison.files_of(name))


def _worse(pair: Pairwise, more_unparsed: float) -> str:
    """Return a sentence that names what got worse from the first run of a pair to the second."""
    rows = [*pair.averages, *(pair.benchmarks if len(pair.benchmarks) > len(pair.averages) else ())]
    faults = [f"{_name(row)} {_points(change)}" for row in rows if _fell(change := _change(row))]
    if pair.hard is not None and _fell(pair.hard):
        faults.append(f"hard records {_points(pair.hard)}")
    for task, rate in pair.over_refusal.items():
        if rate.value is not None and rate.value > 0:
            faults.append(f"over-refusal on {task} {_points(rate)}")
    if more_unparsed > 0:
        count = f"{more_unparsed:,.1f}".removesuffix(".0")
        faults.append(f"{count} more unparsed answer{'' if count == '1' else 's'}")
    if pair.records.flips.lost > 0:
        lost, gained = pair.records.flips.lost, pair.records.flips.gained
        faults.append(f"{lost:,} record{'s' if lost > 1 else ''} lost (gained {gained:,})")
    listed = "; ".join(faults) or "no task, no hard record and no single record"
    return f"Worse than {pair.first}: {listed}."


def _change(row: Difference) -> Estimate:
    """Return the change in F1 or, where no record has the positive label, in accuracy."""
    return row.accuracy if row.f1.value is None else row.f1


def _name(row: Difference) -> str:
    what = "accuracy" if row.f1.value is None else "F1"
    return f"{what} of {row.task}" + ("" if row.benchmark == AVERAGE else f" in {row.benchmark}")


def _fell(change: Estimate) -> bool:
    return change.value is not None and round(change.value, 1) < 0


def _against(comparison: Comparison, name: str, last: str) -> str:
    """Return a sentence that compares the last run with a run other than its nearest baseline."""
    pair = comparison.between(name, last)
    change = pair.records.accuracy
    if change.value is None:
        return f"Against {name}: no answers were counted."
    tone = _tone(change)
    result = "no significant difference" if tone == "open" else tone
    hard = f"; hard records {_points(pair.hard)}" if pair.hard is not None and pair.hard.value is not None else ""
    return f"Against {name}: {result} on all records, {_points(change)}{hard}."


def _tone(change: Estimate) -> Tone:
    if change.low is None or change.high is None:
        return "open"
    return "better" if change.low > 0 else "worse" if change.high < 0 else "open"


def _headline(first: str, last: str, change: Estimate, tone: Tone) -> str:
    if change.value is None:
        return f"{last} and {first} cannot be compared: no answers were counted."
    if change.low is None:
        amount = "as many" if change.value == 0 else "more" if change.value > 0 else "fewer"
        return f"{last} has {amount} records right {'as' if amount == 'as many' else 'than'} {first} (no intervals)."
    if tone == "open":
        return f"No significant difference between {last} and {first}."
    return f"{last} is {tone} than {first}."


def _percent(estimate: Estimate) -> str:
    return "–" if estimate.value is None else f"{estimate.value:.1f} %"


def _points(change: Estimate) -> str:
    interval = "" if change.low is None else f" (95 % interval {change.low:+.1f} to {change.high:+.1f})"
    return f"{change.value:+.1f} points{interval}"
