"""Accuracy of sampled outputs on hard records: the mean over a record's outputs, then over the records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardreasoner.errors import InputError
from guardreasoner.evaluation.intervals import Estimate, estimate, generator_for, resampled_sums
from guardreasoner.evaluation.scoring.outcomes import READING, Mode
from guardreasoner.evaluation.scoring.tallies import Array, percent
from guardreasoner.mining import grade
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import Task


@dataclass(frozen=True, slots=True)
class HardVotes:
    """How one model's outputs on the hard records did.

    Args:
        share: by record id, the share of its counted outputs that meet every gold label; None where none is counted.
        benchmark: by record id, where the record is from.
        samples: outputs, the unparsed ones included.
        unparsed: outputs without a verdict for some task with a gold label.
    """

    share: Mapping[str, float | None]
    benchmark: Mapping[str, str]
    samples: int
    unparsed: int


@dataclass(frozen=True, slots=True)
class HardScore:
    """Percentage of outputs that meet every gold label: mean over a hard record's outputs, then over the records.

    Args:
        accuracy: with its interval.
        records: hard records.
        samples: outputs for them, the unparsed ones included.
        unparsed: outputs without a verdict for some task with a gold label.
    """

    accuracy: Estimate
    records: int
    samples: int
    unparsed: int


def hard_score(votes: Sequence[HardVotes], values: Array) -> HardScore:
    """Return drawn hard-sample accuracy with its interval and counts.

    Args:
        votes: of each file that it was made of, all with the same records; outputs add up.
        values: (1 + resamples,) as from :func:`draw_hard`.
    """
    samples, unparsed = sum(one.samples for one in votes), sum(one.unparsed for one in votes)
    return HardScore(estimate(values), len(votes[0].share), samples, unparsed)


def hard_votes(
    records: Sequence[Record], answers: Iterable[Rollout], tasks: Sequence[Task], mode: Mode = "strict"
) -> HardVotes | None:
    """Grade outputs for hard records; None where there are no outputs.

    An output without a verdict is wrong, but in ``drop``, where it is left out.

    Args:
        records: the hard set.
        answers: any number of outputs for each.
        tasks: what may be answered.
        mode: how outputs are read and unparsable ones counted.

    Raises:
        InputError: an output for a record that is not among them.
    """
    known = {record.id: record for record in records}
    votes: dict[str, list[bool]] = defaultdict(list)
    samples = unparsed = 0
    for answer in answers:
        if answer.record_id not in known:
            raise InputError(f"{answer.model}: an answer for {answer.record_id!r}, which is not among the hard records")
        grades = grade(known[answer.record_id], answer.completion, tasks, READING[mode]).values()
        samples += 1
        unparsed += None in grades
        cast = votes[answer.record_id]
        if mode != "drop" or None not in grades:
            cast.append(all(grades))
    if not votes:
        return None
    share = {identity: sum(cast) / len(cast) if cast else None for identity, cast in votes.items()}
    return HardVotes(share, {identity: known[identity].source for identity in votes}, samples, unparsed)


def draw_hard(models: Sequence[HardVotes], resamples: int, seed: int) -> list[Array]:
    """Return hard-sample accuracy in percent of models that answered the same hard records, all in the same resamples.

    Args:
        models: the votes of each.
        resamples: how often records are drawn, within their benchmark.
        seed: of the draws.

    Returns:
        For each model (1 + resamples,), the first as observed; NaN where no record is counted.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for identity, benchmark in models[0].benchmark.items():
        groups[benchmark].append(identity)
    totals = np.zeros((1 + resamples, 2 * len(models)))
    for benchmark, ids in groups.items():
        shares = np.array([[model.share[identity] for model in models] for identity in ids], dtype=np.float64)
        features = np.hstack([np.nan_to_num(shares), ~np.isnan(shares)])
        totals += resampled_sums(features, resamples, generator_for(seed, f"hard records of {benchmark}"))
    right, counted = np.hsplit(totals, 2)
    return list(percent(right, counted).T)
