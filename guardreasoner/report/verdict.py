"""What a comparison comes to, in words: is the last run better than the first, and how sure is that."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guardreasoner.evaluation.comparison import Comparison
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.evaluation.intervals import Estimate

Tone = Literal["better", "worse", "open"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.

    Args:
        tone: "better" or "worse" where the whole interval of the difference is on one side of 0.
        headline: one sentence.
        details: by how much, a sentence each.
    """

    tone: Tone
    headline: str
    details: tuple[str, ...]


def verdict(comparison: Comparison, criteria: Sequence[Criterion] = ()) -> Verdict:
    """Hold the last run against the first, by the records with every verdict right.

    Args:
        comparison: of two runs or more.
        criteria: of the plan, where they were checked.
    """
    names = list(comparison.scores)
    first, last = names[0], names[-1]
    one, other = comparison.scores[first], comparison.scores[last]
    pair = comparison.between(first, last)
    change = pair.records.accuracy
    tone = _tone(change)
    details = []
    if change.value is not None:
        p = pair.records.flips.p
        test = "" if p is None else f"; exact McNemar test p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
        figures = f"{_percent(other.accuracy)} of {other.records:,} records, against {_percent(one.accuracy)}"
        details.append(f"Every verdict right: {figures}: {_points(change)}{test}.")
    if pair.records.f1.value is not None:
        details.append(f"F1 of the positive class, mean over tasks: {_points(pair.records.f1)}.")
    if pair.hard is not None and pair.hard.value is not None and one.hard and other.hard:
        figures = f"{_percent(other.hard.accuracy)} of the outputs right, against {_percent(one.hard.accuracy)}"
        details.append(f"Hard records: {figures}: {_points(pair.hard)}.")
    details += [_beside(comparison, name, last) for name in names[-2:0:-1]]
    if criteria:
        counts = Counter(one.verdict for one in criteria)
        parts = ", ".join(f"{counts[word]} {word}" for word in ("met", "not met", "not decidable"))
        details.append(f"Criteria of the two-stage plan: {parts}.")
    return Verdict(tone, _headline(first, last, change, tone), tuple(details))


def _beside(comparison: Comparison, name: str, last: str) -> str:
    """Return how the last run stands against one that is not the first: who is best of all is another question."""
    pair = comparison.between(name, last)
    change = pair.records.accuracy
    if change.value is None:
        return f"Against {name}: no answer was counted."
    tone = _tone(change)
    word = "not decided" if tone == "open" else tone
    hard = f"; hard records {_points(pair.hard)}" if pair.hard is not None and pair.hard.value is not None else ""
    return f"Against {name}: {word} on all records, {_points(change)}{hard}."


def _tone(change: Estimate) -> Tone:
    if change.low is None or change.high is None:
        return "open"
    return "better" if change.low > 0 else "worse" if change.high < 0 else "open"


def _headline(first: str, last: str, change: Estimate, tone: Tone) -> str:
    if change.value is None:
        return f"No figure says whether {last} is better than {first}: no answer was counted."
    if change.low is None:
        how = "more records right than" if change.value > 0 else "fewer records right than"
        how = how if change.value else "as many records right as"
        return f"{last} has {how} {first}; without intervals, nothing says how sure that is."
    if tone == "open":
        return f"These data do not decide whether {last} is better than {first}."
    return f"{last} is {tone} than {first}."


def _percent(one: Estimate) -> str:
    return "–" if one.value is None else f"{one.value:.1f} %"


def _points(change: Estimate) -> str:
    interval = "" if change.low is None else f" (95 % interval {change.low:+.1f} to {change.high:+.1f})"
    return f"{change.value:+.1f} points{interval}"
