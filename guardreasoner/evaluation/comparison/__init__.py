"""Runs on the same records, side by side: differences with paired intervals, exact McNemar tests, flips.

A run is one model, or the models of several training seeds, of which it is the mean. In each resample all runs have the
same records; a run's seeds, where there are several, are drawn with replacement as well, each run's on its own.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison.alignment import Aligned, Answers, align
from guardreasoner.evaluation.comparison.flips import Flip, Flips, Seeds, count_flips, list_flips
from guardreasoner.evaluation.intervals import RESAMPLES, Estimate, estimate, generator_for, resampled_seeds
from guardreasoner.evaluation.scoring import AVERAGE, ModelScore, TaskScore, model_score
from guardreasoner.evaluation.scoring.hard_samples import draw_hard, hard_score, hard_votes
from guardreasoner.evaluation.scoring.outcomes import READING, Mode, judge
from guardreasoner.evaluation.scoring.tallies import ACCURACY, Array, Drawn, draw, positive_f1
from guardreasoner.tasks import Task

ALL_RIGHT = "all right"
"""What the row of whole records has for the name of its task."""


@dataclass(frozen=True, slots=True)
class Run:
    """Models that were trained alike, one a seed."""

    name: str
    seeds: tuple[Answers, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The second run minus the first on the same records, in percentage points.

    Args:
        benchmark: source of the records; ``AVERAGE`` over all.
        task: its name; ``ALL_RIGHT`` for whole records.
        n: records.
        f1: in F1 of the positive label; for whole records, in its plain mean over tasks.
        accuracy: in accuracy.
        flips: record by record.
    """

    benchmark: str
    task: str
    n: int
    f1: Estimate
    accuracy: Estimate
    flips: Flips


@dataclass(frozen=True, slots=True)
class Pairwise:
    """Two runs: differences by benchmark and task, by task, over whole records, and in hard-sample accuracy."""

    first: str
    second: str
    benchmarks: tuple[Difference, ...]
    averages: tuple[Difference, ...]
    records: Difference
    hard: Estimate | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs whose figures were drawn together.

    Args:
        tasks: what was answered.
        mode: how outputs were read and unparsable ones counted.
        scores: by run; unparsed answers and outputs on hard records add up over its seeds.
        aligned: what was compared, and what was left out.
        drawn: by run, its figures.
        hard: by run, hard-sample accuracy; empty where a file has no outputs on hard records.
        outcomes: by run and benchmark, those of each seed.
    """

    tasks: tuple[Task, ...]
    mode: Mode
    scores: Mapping[str, ModelScore]
    aligned: Aligned
    drawn: Mapping[str, Drawn]
    hard: Mapping[str, Array]
    outcomes: Mapping[str, Sequence[Seeds]]

    def pairs(self) -> list[Pairwise]:
        """Return each two runs, in the order in which they were given."""
        return [self.between(first, second) for first, second in combinations(self.drawn, 2)]

    def between(self, first: str, second: str) -> Pairwise:
        """Return the second run minus the first; raise ``KeyError`` where there is no such run."""
        one, other, scores = self.drawn[first], self.drawn[second], self.scores[first]
        benchmarks = [
            self._difference(first, second, row, one.benchmarks[key], other.benchmarks[key])
            for row in scores.benchmarks
            for key in [(row.benchmark, row.task)]
        ]
        averages = [
            self._difference(first, second, row, one.averages[row.task], other.averages[row.task])
            for row in scores.averages
        ]
        f1 = estimate(other.overall(self.tasks) - one.overall(self.tasks))
        flips = count_flips(self.outcomes[first], self.outcomes[second], None, self.mode)
        records = Difference(AVERAGE, ALL_RIGHT, scores.records, f1, estimate(other.accuracy - one.accuracy), flips)
        hard = estimate(self.hard[second] - self.hard[first]) if self.hard else None
        return Pairwise(first, second, tuple(benchmarks), tuple(averages), records, hard)

    def flips(self, first: str, second: str) -> Iterator[Flip]:
        """Yield each task of each record that one of two runs has right and the other wrong."""
        yield from list_flips((first, second), self.outcomes[first], self.outcomes[second], self.tasks, self.mode)

    def files_of(self, run: str) -> tuple[Answers, ...]:
        """Return the answers that were compared of each of a run's seeds; raise ``KeyError`` for an unknown run."""
        start = 0
        for name, benchmarks in self.outcomes.items():
            end = start + len(benchmarks[0])
            if name == run:
                return self.aligned.files[start:end]
            start = end
        raise KeyError(run)

    def _difference(self, first: str, second: str, row: TaskScore, one: Array, other: Array) -> Difference:
        place = next(number for number, task in enumerate(self.tasks) if task.name == row.task)
        change = other - one
        a, b = (
            [seeds for seeds in self.outcomes[name] if row.benchmark in (AVERAGE, seeds[0].benchmark)]
            for name in (first, second)
        )
        flips = count_flips(a, b, place, self.mode)
        f1, accuracy = estimate(positive_f1(change, self.tasks[place])), estimate(change[:, ACCURACY])
        return Difference(row.benchmark, row.task, row.n, f1, accuracy, flips)


def compare(
    runs: Sequence[Run],
    tasks: Sequence[Task],
    mode: Mode = "strict",
    intersect: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare runs on the same records.

    Args:
        runs: at least two, of different names, as are the names of all their files.
        tasks: what was answered.
        mode: how outputs are read and unparsable ones counted.
        intersect: compare on the records that all files have, where they have not the same.
        resamples: how many the intervals are made of; 0 for no intervals.
        seed: of the resampling.

    Raises:
        InputError: fewer than two runs, other records without ``intersect``, or answers that do not fit their records.
    """
    if len(runs) < 2:
        raise InputError(f"a comparison takes two runs or more, got {len(runs)}", "score shows a single one")
    names = Counter(answers.name for run in runs for answers in run.seeds)
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise InputError(f"{twice} is given twice")
    aligned = align([answers for run in runs for answers in run.seeds], intersect)
    files = [judge(one.name, one.records, one.rollouts, tasks, READING[mode]) for one in aligned.files]
    drawn = draw(files, tasks, mode, resamples, seed)
    hard = [
        votes
        for one in aligned.files
        if (votes := hard_votes(one.hard_records, one.hard_rollouts, tasks, mode)) is not None
    ]
    hard_drawn = draw_hard(hard, resamples, seed) if hard else []
    scores: dict[str, ModelScore] = {}
    drawn_by_run: dict[str, Drawn] = {}
    hard_by_run: dict[str, Array] = {}
    outcomes: dict[str, Sequence[Seeds]] = {}
    end = 0
    for run in runs:
        start, end = end, end + len(run.seeds)
        mine = slice(start, end)
        weights = resampled_seeds(len(run.seeds), resamples, generator_for(seed, f"seeds of {run.name}"))
        drawn_by_run[run.name] = _mean_of(drawn[mine], weights)
        outcomes[run.name] = list(zip(*files[mine], strict=True))
        if hard:
            hard_by_run[run.name] = _mean(hard_drawn[mine], weights)
        score = hard_score(hard[mine], hard_by_run[run.name]) if hard else None
        scores[run.name] = model_score(run.name, files[mine], drawn_by_run[run.name], tasks, score)
    return Comparison(tuple(tasks), mode, scores, aligned, drawn_by_run, hard_by_run, outcomes)


def _mean_of(seeds: Sequence[Drawn], weights: Array) -> Drawn:
    first = seeds[0]
    return Drawn(
        {key: _mean([one.benchmarks[key] for one in seeds], weights) for key in first.benchmarks},
        {key: _mean([one.averages[key] for one in seeds], weights) for key in first.averages},
        _mean([one.accuracy for one in seeds], weights),
    )


def _mean(values: Sequence[Array], weights: Array) -> Array:
    """Return the mean over seeds of (1 + resamples, ...), weighted by (1 + resamples, seeds)."""
    total = np.zeros_like(values[0])
    for value, weight in zip(values, weights.T, strict=True):
        weight = weight.reshape(-1, *[1] * (value.ndim - 1))
        total += np.where(weight > 0, weight * value, 0)  # an undefined value counts where its seed was drawn
    return total
