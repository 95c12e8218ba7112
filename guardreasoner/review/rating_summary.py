"""Ratings of several raters together: rates of each model, who is better, how far raters agree. numpy only.

A record counts once however many raters it has: an answer's share of an item is the mean over its raters, and of two
runs that one is better on a record which more raters call better. Intervals are of 95 %: Wilson's for rates, over
records; for agreement and kappa a bootstrap over records, each with all its answers.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from guardreasoner.evaluation.comparison.flips import mcnemar
from guardreasoner.evaluation.intervals import RESAMPLES, Estimate, estimate, generator_for, resampled_sums, wilson
from guardreasoner.mining.measures import agreement
from guardreasoner.review.ratings import RUBRIC, TIE, Rating, Ratings

BETTER = "better"
"""Stands for the question which answer is better, where an item's key would stand."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often an item holds of a run's answers.

    Args:
        percent: mean over records of the share of raters who say yes, with Wilson's interval over the records.
        records: on which somebody says yes or no.
        judgements: how often that was said.
    """

    percent: Estimate
    records: int
    judgements: int


@dataclass(frozen=True, slots=True)
class Win:
    """Two runs on the records on which somebody says which is better, or that none is.

    Args:
        first, second: names of the runs.
        first_better: records on which more raters prefer the first.
        ties: records on which as many prefer either, or all call it a tie.
        second_better: records on which more raters prefer the second.
        rate: of the second run, in percent: better on so many records, ties for half, with Wilson's interval.
        p: of the exact sign test, two-sided, ties left out.
    """

    first: str
    second: str
    first_better: int
    ties: int
    second_better: int
    rate: Estimate
    p: float


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """Two raters on one question.

    Args:
        one, other: their names.
        item: key of the item, or ``BETTER``.
        n: answers (``BETTER``: records) on which both say something.
        percent: on how many of them they say the same.
        kappa: Cohen's; None where chance alone would make them agree on everything.
    """

    one: str
    other: str
    item: str
    n: int
    percent: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class Summary:
    """What ratings say.

    Args:
        raters: records that each has rated, by name.
        skipped: records that each has passed over.
        notes: how many ratings have a note.
        records: that somebody has rated.
        rubric: by run and item.
        wins: each two runs that were rated side by side.
        agreement: each two raters with something in common, by question.
        retracted: lines that were taken back.
        replaced: ratings that a later one replaces.
        other_texts: ratings left out since their texts are not those that were asked for, or were rated last.
        torn: files whose last line was cut off.
    """

    raters: Mapping[str, int]
    skipped: Mapping[str, int]
    notes: int
    records: int
    rubric: Mapping[str, Mapping[str, Rate]]
    wins: tuple[Win, ...]
    agreement: tuple[RaterAgreement, ...]
    retracted: int
    replaced: int
    other_texts: int
    torn: int


def summarise(
    found: Ratings, texts: Mapping[str, Mapping[str, str]] | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Summary:
    """Summarise ratings.

    Args:
        found: as read.
        texts: by record and run the hashes (:meth:`Rating.texts`) that count; None: those that were rated last.
        resamples: how many the intervals of agreement are made of; 0 for none.
        seed: of the resampling.
    """
    latest = found.latest()
    wanted = texts if texts is not None else _rated_last(latest)
    counted = [one for one in latest if _are_in(one.texts(), wanted.get(one.record_id, {}))]
    rated = [one for one in counted if not one.skipped]
    runs = list(dict.fromkeys(run for of in wanted.values() for run in of)) if texts is not None else None
    names = runs or sorted({run for one in rated for run in one.texts()})
    said = {item.key: _said(rated, item.key) for item in RUBRIC}
    preferred = _preferred(rated)
    return Summary(
        raters=_count_by_rater(rated),
        skipped=_count_by_rater([one for one in counted if one.skipped]),
        notes=sum(bool(one.note) for one in rated),
        records=len({one.record_id for one in rated}),
        rubric={run: {item.key: _rate(said[item.key], run) for item in RUBRIC} for run in names},
        wins=tuple(win for pair in combinations(names, 2) if (win := _win(rated, *pair)) is not None),
        agreement=_agreements({**said, BETTER: preferred}, resamples, seed),
        retracted=found.retracted,
        replaced=len(found.standing) - len(latest),
        other_texts=len(latest) - len(counted),
        torn=found.torn,
    )


def _rated_last(ratings: Sequence[Rating]) -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for one in ratings:
        texts[one.record_id].update(one.texts())
    return texts


def _are_in(texts: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(wanted.get(run) == text for run, text in texts.items())


def _count_by_rater(ratings: Sequence[Rating]) -> dict[str, int]:
    records: dict[str, set[str]] = defaultdict(set)
    for one in ratings:
        records[one.rater].add(one.record_id)
    return {rater: len(records[rater]) for rater in sorted(records)}


Said = dict[str, dict[tuple[str, object], object]]
"""By rater: what was said of something of a record, by the record's id and what it was."""


def _said(ratings: Sequence[Rating], item: str) -> Said:
    """Return by rater: yes or no on an item, by record and run; where rated among other runs too, the later one."""
    said: Said = defaultdict(dict)
    for one in ratings:
        for answer in one.answers.values():
            if (says := answer.says[item]) is not None:
                said[one.rater][one.record_id, answer.run] = says
    return said


def _preferred(ratings: Sequence[Rating]) -> Said:
    """Return by rater: the run that is better, or ``TIE``, by record and the runs that stood side by side."""
    said: Said = defaultdict(dict)
    for one in ratings:
        if one.better is not None:
            # A run may be called "tie", too: what is said is a pair.
            best = (TIE, "") if one.better == TIE else ("", one.answers[one.better].run)
            said[one.rater][one.record_id, frozenset(one.texts())] = best
    return said


def _rate(said: Said, run: str) -> Rate:
    votes: dict[str, list[bool]] = defaultdict(list)
    for of in said.values():
        for (record_id, whose), says in of.items():
            if whose == run:
                votes[record_id].append(bool(says))
    judgements = sum(map(len, votes.values()))
    return Rate(_percent([fmean(cast) for cast in votes.values()]), len(votes), judgements)


def _percent(shares: Sequence[float]) -> Estimate:
    """Return the mean in percent; each share is from 0 to 1."""
    if not shares:
        return Estimate(None)
    mean = fmean(shares)
    return wilson(mean, len(shares))


def _win(ratings: Sequence[Rating], first: str, second: str) -> Win | None:
    votes: dict[str, dict[str, int]] = defaultdict(dict)
    for one in ratings:
        slots = {answer.run: slot for slot, answer in one.answers.items()}
        # Of three runs, that the third is the best says nothing of the other two.
        if first in slots and second in slots and one.better in (TIE, slots[first], slots[second]):
            votes[one.record_id][one.rater] = (one.better == slots[second]) - (one.better == slots[first])
    if not votes:
        return None
    signs = [int(np.sign(sum(of.values()))) for of in votes.values()]
    lost, ties, won = (signs.count(sign) for sign in (-1, 0, 1))
    return Win(first, second, lost, ties, won, _percent([(sign + 1) / 2 for sign in signs]), mcnemar(won, lost))


def _agreements(questions: Mapping[str, Said], resamples: int, seed: int) -> tuple[RaterAgreement, ...]:
    raters = sorted({rater for said in questions.values() for rater in said})
    found = []
    for one, other in combinations(raters, 2):
        for item, said in questions.items():
            first, second = said.get(one, {}), said.get(other, {})
            both = [key for key in first if key in second]
            if both:
                name = f"{item} of {one} and {other}"
                cells = _cells([(key[0], first[key], second[key]) for key in both])
                sums = resampled_sums(cells, resamples, generator_for(seed, name))
                size = round(cells.shape[1] ** 0.5)
                share, kappa = agreement(sums.reshape(-1, size, size))
                found.append(RaterAgreement(one, other, item, len(both), estimate(100 * share), estimate(kappa)))
    return tuple(found)


def _cells(judged: Sequence[tuple[str, object, object]]) -> np.ndarray:
    """Return (records, C · C) how often each two things were said of a record's answers, from (record, one, other)."""
    what = sorted({said for _, *both in judged for said in both}, key=repr)
    places = {said: place for place, said in enumerate(what)}
    records: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((len(what), len(what))))
    for record_id, one, other in judged:
        records[record_id][places[one], places[other]] += 1
    return np.array([table.ravel() for table in records.values()])
