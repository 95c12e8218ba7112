"""Summarize the ratings of several raters: rates by run, preferences between runs, agreement, label decisions.

Every record counts once, however many raters it has: the rate of an answer is the mean over its raters, and a run is
better on a record if more raters prefer it. Intervals are 95 %: Wilson's over records for rates; for agreement and
kappa, a bootstrap over records, with all answers of a record drawn together.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from guardreasoner.evaluation.comparison.flips import mcnemar
from guardreasoner.evaluation.intervals import RESAMPLES, Estimate, estimate, generator_for, resampled_sums, wilson
from guardreasoner.mining.metrics import agreement
from guardreasoner.review.ratings import RUBRIC, TIE, Rating, Ratings

BETTER = "better"
"""Key of the question which answer is better, beside the keys of ``RUBRIC``."""


@dataclass(frozen=True, slots=True)
class YesRate:
    """How often raters answer yes to a question about a run's answers.

    Args:
        percent: mean over records of the share of raters who answer yes, with Wilson's interval over the records.
        records: number of records with an answer to the question.
        judgements: number of answers to the question.
    """

    percent: Estimate
    records: int
    judgements: int


@dataclass(frozen=True, slots=True)
class Preference:
    """Preference between two runs, over the records on which a rater chose one of them or a tie.

    Args:
        first: name of the first run.
        second: name of the second run.
        first_better: number of records on which more raters prefer the first run.
        ties: number of records on which as many raters prefer either run.
        second_better: number of records on which more raters prefer the second run.
        rate: win rate of the second run in percent, a tie counting as half, with Wilson's interval.
        p: two-sided p value of the exact sign test, without ties.
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
    """Agreement of two raters on one question.

    Args:
        one: name of the first rater.
        other: name of the second rater.
        item: key of the question, or ``BETTER``.
        n: number of answers (for ``BETTER``: records) that both judged.
        percent: percentage of these on which both agree.
        kappa: Cohen's kappa; undefined if the expected agreement by chance is 100 %.
    """

    one: str
    other: str
    item: str
    n: int
    percent: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of ratings.

    Args:
        raters: number of records rated, by rater.
        skipped: number of records skipped, by rater.
        notes: number of ratings with a note.
        records: number of records with a rating.
        rubric: rates by run and question key.
        wins: preferences of all pairs of runs that were rated side by side.
        agreement: agreement of all pairs of raters, by question.
        retracted: number of retracted lines.
        replaced: number of ratings that a later one replaces.
        other_texts: number of ratings left out because their texts are not the requested or last rated ones.
        truncated: number of files whose last line was truncated.
        decisions: by rater, number of labels by decision; a skipped label has the decision None.
    """

    raters: Mapping[str, int]
    skipped: Mapping[str, int]
    notes: int
    records: int
    rubric: Mapping[str, Mapping[str, YesRate]]
    wins: tuple[Preference, ...]
    agreement: tuple[RaterAgreement, ...]
    retracted: int
    replaced: int
    other_texts: int
    truncated: int
    decisions: Mapping[str, Mapping[str | None, int]]


Judgements = dict[str, dict[tuple[str, object], object]]
"""Judgements on one question: by rater, the value by (record id, run or set of runs)."""


def summarize(
    ratings: Ratings, texts: Mapping[str, Mapping[str, str]] | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Summary:
    """Summarize ratings.

    Args:
        ratings: the ratings as read.
        texts: hashes (:meth:`Rating.text_hashes`) by record id and run; only ratings of these texts count. None: for
            each record and run, the text that was rated last.
        resamples: number of bootstrap resamples for the intervals of agreement; 0 for none.
        seed: seed of the bootstrap.
    """
    active = [rating for rating in ratings.active if rating.question is None and rating.labels is None]
    latest = Ratings(tuple(active)).latest()
    decisions = [rating for rating in ratings.latest() if rating.question is not None]
    expected = texts if texts is not None else _last_rated_texts(latest)
    counted = [rating for rating in latest if _has_texts(rating, expected.get(rating.record_id, {}))]
    rated = [rating for rating in counted if not rating.skipped]
    given_runs = list(dict.fromkeys(run for runs in expected.values() for run in runs)) if texts is not None else None
    names = given_runs or sorted({run for rating in rated for run in rating.text_hashes()})
    judgements = {question.key: _marks(rated, question.key) for question in RUBRIC}
    return Summary(
        raters=_count_by_rater(rated),
        skipped=_count_by_rater([rating for rating in counted if rating.skipped]),
        notes=sum(bool(rating.note) for rating in rated),
        records=len({rating.record_id for rating in rated}),
        rubric={run: {key: _yes_rate(marks, run) for key, marks in judgements.items()} for run in names},
        wins=tuple(win for pair in combinations(names, 2) if (win := _preference(rated, *pair)) is not None),
        agreement=_agreements({**judgements, BETTER: _choices(rated)}, resamples, seed),
        retracted=ratings.retracted,
        replaced=len(ratings.active) - len(ratings.latest()),
        other_texts=len(latest) - len(counted),
        truncated=ratings.truncated,
        decisions={
            rater: Counter(one.better for one in decisions if one.rater == rater)
            for rater in dict.fromkeys(one.rater for one in decisions)
        },
    )


def _last_rated_texts(ratings: Sequence[Rating]) -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for rating in ratings:
        texts[rating.record_id].update(rating.text_hashes())
    return texts


def _has_texts(rating: Rating, expected: Mapping[str, str]) -> bool:
    return all(expected.get(run) == text for run, text in rating.text_hashes().items())


def _count_by_rater(ratings: Sequence[Rating]) -> dict[str, int]:
    records: dict[str, set[str]] = defaultdict(set)
    for rating in ratings:
        records[rating.rater].add(rating.record_id)
    return {rater: len(records[rater]) for rater in sorted(records)}


def _marks(ratings: Sequence[Rating], question: str) -> Judgements:
    """Return the marks on a question by rater, record and run; if a rater gave several, the last one."""
    judgements: Judgements = defaultdict(dict)
    for rating in ratings:
        for answer in rating.answers.values():
            if (mark := answer.marks[question]) is not None:
                judgements[rating.rater][rating.record_id, answer.run] = mark
    return judgements


def _choices(ratings: Sequence[Rating]) -> Judgements:
    """Return the better run, or a tie, by rater, record and the set of runs shown side by side."""
    judgements: Judgements = defaultdict(dict)
    for rating in ratings:
        if rating.better is not None:
            # a pair, since a run may be called "tie", too
            choice = (TIE, "") if rating.better == TIE else ("", rating.answers[rating.better].run)
            judgements[rating.rater][rating.record_id, frozenset(rating.text_hashes())] = choice
    return judgements


def _yes_rate(judgements: Judgements, run: str) -> YesRate:
    votes: dict[str, list[bool]] = defaultdict(list)
    for marks in judgements.values():
        for (record_id, marked_run), mark in marks.items():
            if marked_run == run:
                votes[record_id].append(bool(mark))
    shares = [fmean(record_votes) for record_votes in votes.values()]
    return YesRate(_mean_percent(shares), len(votes), sum(map(len, votes.values())))


def _mean_percent(shares: Sequence[float]) -> Estimate:
    """Return the mean of shares from 0 to 1 in percent, with Wilson's interval."""
    return wilson(fmean(shares), len(shares)) if shares else Estimate(None)


def _preference(ratings: Sequence[Rating], first: str, second: str) -> Preference | None:
    votes: dict[str, dict[str, int]] = defaultdict(dict)
    for rating in ratings:
        slots = {answer.run: slot for slot, answer in rating.answers.items()}
        # if a third run is the best, the rating does not compare these two
        if first in slots and second in slots and rating.better in (TIE, slots[first], slots[second]):
            vote = (rating.better == slots[second]) - (rating.better == slots[first])
            votes[rating.record_id][rating.rater] = vote
    if not votes:
        return None
    signs = [int(np.sign(sum(record_votes.values()))) for record_votes in votes.values()]
    losses, ties, wins = (signs.count(sign) for sign in (-1, 0, 1))
    rate = _mean_percent([(sign + 1) / 2 for sign in signs])
    return Preference(first, second, losses, ties, wins, rate, mcnemar(wins, losses))


def _agreements(questions: Mapping[str, Judgements], resamples: int, seed: int) -> tuple[RaterAgreement, ...]:
    raters = sorted({rater for judgements in questions.values() for rater in judgements})
    agreements = []
    for one, other in combinations(raters, 2):
        for item, judgements in questions.items():
            first, second = judgements.get(one, {}), judgements.get(other, {})
            common = [key for key in first if key in second]
            if common:
                name = f"{item} of {one} and {other}"
                counts = _joint_counts([(key[0], first[key], second[key]) for key in common])
                sums = resampled_sums(counts, resamples, generator_for(seed, name))
                size = round(counts.shape[1] ** 0.5)
                share, kappa = agreement(sums.reshape(-1, size, size))
                agreements.append(RaterAgreement(one, other, item, len(common), estimate(100 * share), estimate(kappa)))
    return tuple(agreements)


def _joint_counts(judged: Sequence[tuple[str, object, object]]) -> np.ndarray:
    """Return (records, C · C) counts of each pair of values that two raters gave to the answers of a record.

    Args:
        judged: (record id, value of the first rater, value of the second rater) for each answer.
    """
    values = sorted({value for _, *pair in judged for value in pair}, key=repr)
    index = {value: number for number, value in enumerate(values)}
    records: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((len(values), len(values))))
    for record_id, one, other in judged:
        records[record_id][index[one], index[other]] += 1
    return np.array([table.ravel() for table in records.values()])
