"""One-sentence summary of a comparison: whether the last run is better than the first, with details."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guardreasoner.evaluation.comparison import Comparison
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.evaluation.intervals import Estimate

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


def summarize_comparison(comparison: Comparison, criteria: Sequence[Criterion] = ()) -> ComparisonSummary:
    """Compare the last run with the first by the share of records with every verdict right.

    Args:
        comparison: Comparison of two or more runs.
        criteria: Checked criteria of the two-stage plan; may be empty.
    """
    names = list(comparison.scores)
    first_name, last_name = names[0], names[-1]
    first, last = comparison.scores[first_name], comparison.scores[last_name]
    pair = comparison.between(first_name, last_name)
    change = pair.records.accuracy
    tone = _tone(change)
    details = []
    if change.value is not None:
        p = pair.records.flips.p
        test = "" if p is None else f"; exact McNemar test p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
        shares = f"{_percent(last.accuracy)} of {last.records:,} records, against {_percent(first.accuracy)}"
        details.append(f"Every verdict right: {shares}: {_points(change)}{test}.")
    if pair.records.f1.value is not None:
        details.append(f"F1 of the positive class, mean over tasks: {_points(pair.records.f1)}.")
    if pair.hard is not None and pair.hard.value is not None and first.hard and last.hard:
        shares = f"{_percent(last.hard.accuracy)} of the outputs right, against {_percent(first.hard.accuracy)}"
        details.append(f"Hard records: {shares}: {_points(pair.hard)}.")
    details += [_against(comparison, name, last_name) for name in names[-2:0:-1]]
    if criteria:
        counts = Counter(criterion.verdict for criterion in criteria)
        parts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("met", "not met", "not decidable"))
        of_plan = all(criterion.of_plan for criterion in criteria)
        details.append(f"Criteria{' of the two-stage plan' if of_plan else ''}: {parts}.")
    return ComparisonSummary(tone, _headline(first_name, last_name, change, tone), tuple(details))


def _against(comparison: Comparison, name: str, last: str) -> str:
    """Return a sentence that compares the last run with a run other than the first."""
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
