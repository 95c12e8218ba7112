"""Hard-sample accuracy: share of correct outputs, averaged over a record's outputs, then over the hard records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardreasoner.errors import InputError
from guardreasoner.evaluation.intervals import Estimate, estimate, generator_for, resampled_sums
from guardreasoner.evaluation.scoring.labels import PARSER_BY_MODE, Mode
from guardreasoner.evaluation.scoring.metrics import Array, percent
from guardreasoner.formats import GuardFormat
from guardreasoner.mining import grade
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import Task


@dataclass(frozen=True, slots=True)
class HardVotes:
    """Graded outputs of one model on the hard records.

    Args:
        correct_share: by record id, share of its counted outputs that match every gold label; None if no output counts.
        benchmarks: by record id, source of the record.
        samples: number of outputs, unparsed ones included.
        unparsed: number of outputs without a verdict for some task with a gold label.
    """

    correct_share: Mapping[str, float | None]
    benchmarks: Mapping[str, str]
    samples: int
    unparsed: int


@dataclass(frozen=True, slots=True)
class HardScore:
    """Hard-sample accuracy of one model.

    Args:
        accuracy: percentage of outputs that match every gold label: mean over a record's outputs, then over records.
        records: number of hard records.
        samples: number of outputs for them, unparsed ones included.
        unparsed: number of outputs without a verdict for some task with a gold label.
    """

    accuracy: Estimate
    records: int
    samples: int
    unparsed: int


def hard_votes(
    records: Sequence[Record],
    answers: Iterable[Rollout],
    tasks: Sequence[Task],
    mode: Mode = "strict",
    format: GuardFormat | None = None,
) -> HardVotes | None:
    """Grade the outputs for hard records; return None if there are no outputs.

    An unparsed output is wrong, except in mode ``drop``, which leaves it out.

    Args:
        records: the hard set.
        answers: any number of outputs for each record.
        tasks: tasks to score.
        mode: how outputs are parsed and how unparsed ones count.
        format: format of the outputs; None: GuardReasoner's own.

    Raises:
        InputError: if an output belongs to a record that is not in the hard set.
    """
    record_by_id = {record.id: record for record in records}
    votes: dict[str, list[bool]] = defaultdict(list)
    samples = unparsed = 0
    for answer in answers:
        if answer.record_id not in record_by_id:
            raise InputError(f"{answer.model}: answer for {answer.record_id!r}, which is not one of the hard records")
        record = record_by_id[answer.record_id]
        grades = grade(record, answer.completion, tasks, PARSER_BY_MODE[mode], format).values()
        samples += 1
        unparsed += None in grades
        record_votes = votes[answer.record_id]  # also adds a record whose outputs are all dropped
        if mode != "drop" or None not in grades:
            record_votes.append(all(grades))
    if not votes:
        return None
    shares = {
        record_id: sum(record_votes) / len(record_votes) if record_votes else None
        for record_id, record_votes in votes.items()
    }
    return HardVotes(shares, {record_id: record_by_id[record_id].source for record_id in votes}, samples, unparsed)


def resample_hard_accuracy(models: Sequence[HardVotes], resamples: int, seed: int) -> list[Array]:
    """Return hard-sample accuracy in percent, with the same resamples for all models.

    Args:
        models: votes of each model, on the same hard records.
        resamples: number of resamples; records are drawn within their benchmark.
        seed: seed of the draws.

    Returns:
        (1 + resamples,) for each model, the observed value first; NaN where no record counts.
    """
    ids_by_benchmark: dict[str, list[str]] = defaultdict(list)
    for record_id, benchmark in models[0].benchmarks.items():
        ids_by_benchmark[benchmark].append(record_id)
    totals = np.zeros((1 + resamples, 2 * len(models)))
    for benchmark, ids in ids_by_benchmark.items():
        shares = np.array([[model.correct_share[record_id] for model in models] for record_id in ids], dtype=np.float64)
        features = np.hstack([np.nan_to_num(shares), ~np.isnan(shares)])
        totals += resampled_sums(features, resamples, generator_for(seed, f"hard records of {benchmark}"))
    correct, counted = np.hsplit(totals, 2)
    return list(percent(correct, counted).T)


def hard_score(votes: Sequence[HardVotes], accuracy: Array) -> HardScore:
    """Return hard-sample accuracy with its interval and counts.

    Args:
        votes: votes of each file that the accuracy is a mean of, all on the same records; their outputs add up.
        accuracy: (1 + resamples,) as returned by :func:`resample_hard_accuracy`.
    """
    samples, unparsed = sum(one.samples for one in votes), sum(one.unparsed for one in votes)
    return HardScore(estimate(accuracy), len(votes[0].correct_share), samples, unparsed)
