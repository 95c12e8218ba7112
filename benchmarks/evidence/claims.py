"""The first lines of the page: for each claim, whether it holds, the difference with its interval, and why."""

from collections.abc import Iterator, Sequence
from typing import Literal

from evidence.differences import MIN_SEEDS
from evidence.section import Section
from evidence.study import Claim
from guardreasoner.evaluation.intervals import Estimate

State = Literal["holds", "does not hold", "undecided"]
COSTS = {"cpu": "CPU time", "generated": "generated tokens"}


def claim_lines(sections: Sequence[Section]) -> Iterator[str]:
    """Yield a line for each claim with its verdict on each data set that has results, and one with what is not run.

    Claims with the same text share a line, also those of several studies.
    """
    for text in dict.fromkeys(claim.text for section in sections for claim in section.study.claims):
        verdicts, tried = [], []
        for section in sections:
            for claim in (claim for claim in section.study.claims if claim.text == text):
                if (verdict := _verdict(claim, section)) is not None:
                    state, words = verdict
                    verdicts.append(f"**{state}** on {section.data}, {words}")
                    tried += [claim.tried.strip().rstrip(".")] if state == "does not hold" and claim.tried else []
        ending = f" Tried: {'; '.join(dict.fromkeys(tried))}." if tried else ""
        yield f"- {text}: {'; '.join(verdicts) or 'not run yet'}.{ending}"
    empty = [section.data for section in sections if not section.results]
    partial = [section.data for section in sections if section.results and section.missing()]
    named = [", ".join(empty)] if empty else []
    named += [f"some arms or seeds of {', '.join(partial)}"] if partial else []
    if named:
        yield f"- Not run yet: {'; '.join(named)}."


def judge(points: Estimate, claim: Claim) -> tuple[State, str]:
    """Return whether a claim holds, and why.

    A limit (``at_most``) or a margin (``at_least`` up to 0) is decided by the whole interval. A required gain
    (``at_least`` above 0) is decided by the difference itself, which in addition must be above 0 with its interval.

    Args:
        points: The difference, or the figure of one arm, with its interval.
        claim: The claim.
    """
    value, low, high = points.value, points.low, points.high
    if value is None or low is None or high is None:
        return "undecided", "not defined"
    if claim.at_most is not None:
        limit = f"{claim.at_most:g} %"
        if high <= claim.at_most:
            return "holds", f"at most {limit}"
        return ("does not hold", f"above {limit}") if low > claim.at_most else ("undecided", f"may be above {limit}")
    sign = "above 0" if low > 0 else "below 0" if high < 0 else "may be 0"
    required = claim.at_least
    if required > 0:
        if value < required:
            return "does not hold", f"{sign}, below {required:g}"
        return "holds" if low > 0 else "undecided", f"at least {required:g}, {sign}"
    if required < 0 and low <= 0:
        place = "above" if low > required else "below" if high < required else "may be below"
        sign = f"{place} {required:g}" + (f", {sign}" if high < 0 and place == "above" else "")
    return "holds" if low > required else "does not hold" if high < required else "undecided", sign


def points_of(value: Estimate, sign: str = "+") -> str:
    """Return a difference with its interval as text; with an empty sign, a share, which is not below 0."""
    if value.value is None:
        return "undefined"
    ends = [value.low, value.high]
    texts = [f"{end if sign else max(0.0, end):{sign}.1f}" for end in ends if end is not None]
    return f"{value.value:{sign}.1f}" + (f" ({' to '.join(texts)})" if len(texts) == 2 else "")


def _verdict(claim: Claim, section: Section) -> tuple[State, str] | None:
    """Return the state of a claim on a data set and the words for it; None if an arm of it has no result."""
    if not set(claim.arms) <= set(section.study.arms_of(section.data)):
        return None
    found = section.difference(claim.better, claim.than, claim.figure)
    if found is None:
        return None
    state, why = judge(found.points, claim)
    count, planned = len(found.seeds), len(section.study.seeds_of(section.data))
    seeds = f", {count} of {planned} seeds" if count < planned else ""
    former = " with former configs" if set(claim.arms) & set(section.study.data[section.data].former) else ""
    if count < MIN_SEEDS:
        state, why = "undecided", f"fewer than {MIN_SEEDS} seeds decide nothing"
    words = f"{points_of(found.points, '+' if claim.than else '')}{former}{seeds}: {why}"
    if claim.cost is not None and claim.than:
        ratio = section.cost_ratio(claim.better, claim.than, claim.cost)
        words += f" (at {ratio:.2f} × its {COSTS[claim.cost]})" if ratio is not None else ""
    return state, words
