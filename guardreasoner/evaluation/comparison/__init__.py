"""Compare runs on the same records: differences with paired intervals, exact McNemar tests, flips.

A run is one model, or the models of several training seeds, whose scores are averaged. In each resample all runs have
the same records; the seeds of a run, if there are several, are resampled as well, independently for each run.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison.alignment import Aligned, Answers, align
from guardreasoner.evaluation.comparison.flips import Flip, Flips, SeedLabels, count_flips, list_flips
from guardreasoner.evaluation.intervals import RESAMPLES, Estimate, estimate, generator_for, resampled_seeds
from guardreasoner.evaluation.scoring import AVERAGE, ModelScore, TaskScore, model_score
from guardreasoner.evaluation.scoring.hard_samples import hard_score, hard_votes, resample_hard_accuracy
from guardreasoner.evaluation.scoring.labels import PARSER_BY_MODE, BenchmarkLabels, Mode, collect_labels
from guardreasoner.evaluation.scoring.metrics import (
    ACCURACY,
    Array,
    ResampledScores,
    mean_over_seeds,
    positive_f1,
    resample_scores,
    weighted_mean,
)
from guardreasoner.evaluation.scoring.over_refusal import OverRefusal, over_refusal
from guardreasoner.evaluation.scoring.readings import Reading, binary_labels, binary_task
from guardreasoner.evaluation.scoring.steerability import steered_pairs
from guardreasoner.tasks import Task

ALL_RIGHT = "all right"
"""Task name of the row over all tasks: a record is right if its answer matches every gold label."""


@dataclass(frozen=True, slots=True)
class Run:
    """Models trained with the same settings.

    Args:
        name: name of the run.
        seeds: answers of the model of each training seed.
    """

    name: str
    seeds: tuple[Answers, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The second run minus the first on the same records, in percentage points.

    Args:
        benchmark: source of the records; ``AVERAGE`` for all benchmarks.
        task: name of the task; ``ALL_RIGHT`` for all tasks together.
        n: number of records.
        f1: difference in F1 of the positive label; for ``ALL_RIGHT``, in its unweighted mean over tasks.
        accuracy: difference in accuracy.
        flips: number of records that flip.
        readings: if the labels are ordered, the differences of the binary scores by reading.
    """

    benchmark: str
    task: str
    n: int
    f1: Estimate
    accuracy: Estimate
    flips: Flips
    readings: Mapping[Reading, "Difference"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pairwise:
    """Differences between two runs.

    Args:
        first: name of the first run.
        second: name of the second run.
        benchmarks: differences by benchmark and task.
        averages: differences by task, averaged over the benchmarks where the score is defined for all compared runs.
        records: difference over all tasks and records.
        hard: difference in hard-sample accuracy; None if a file has no outputs on hard records.
        over_refusal: difference in the false-positive rate on look-alikes, by task or reading; empty if there are none.
    """

    first: str
    second: str
    benchmarks: tuple[Difference, ...]
    averages: tuple[Difference, ...]
    records: Difference
    hard: Estimate | None
    over_refusal: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs scored on the same records with the same resamples.

    Args:
        tasks: tasks scored.
        mode: how outputs were parsed and how unparsed ones count.
        scores: scores by run; unparsed answers and outputs on hard records add up over its seeds.
        aligned: answers compared, and what was left out.
        resampled: resampled scores by run, averaged over its seeds.
        hard: hard-sample accuracy by run, (1 + resamples,); empty if a file has no outputs on hard records.
        labels: by run, labels by benchmark and seed.
        over_refusal: over-refusal by run; empty if there are no look-alikes.
    """

    tasks: tuple[Task, ...]
    mode: Mode
    scores: Mapping[str, ModelScore]
    aligned: Aligned
    resampled: Mapping[str, ResampledScores]
    hard: Mapping[str, Array]
    labels: Mapping[str, Sequence[SeedLabels]]
    over_refusal: Mapping[str, OverRefusal] = field(default_factory=dict)

    def pairs(self) -> list[Pairwise]:
        """Return the differences of all pairs of runs, in the order in which the runs were given."""
        return [self.between(first, second) for first, second in combinations(self.scores, 2)]

    def between(self, first: str, second: str) -> Pairwise:
        """Return the second run minus the first; raise ``KeyError`` for an unknown run."""
        before, after, scores = self.resampled[first], self.resampled[second], self.scores[first]
        benchmarks = [self._difference(first, second, row) for row in scores.benchmarks]
        averages = [self._difference(first, second, row) for row in scores.averages]
        f1 = estimate(after.overall(self.tasks) - before.overall(self.tasks))
        flips = count_flips(self.labels[first], self.labels[second], None, self.mode)
        accuracy = estimate(after.accuracy - before.accuracy)
        records = Difference(AVERAGE, ALL_RIGHT, scores.records, f1, accuracy, flips)
        hard = estimate(self.hard[second] - self.hard[first]) if self.hard else None
        return Pairwise(
            first, second, tuple(benchmarks), tuple(averages), records, hard, self._refusal_changes(first, second)
        )

    def flips(self, first: str, second: str) -> Iterator[Flip]:
        """Yield each task of each record that one of two runs has right and the other wrong."""
        yield from list_flips((first, second), self.labels[first], self.labels[second], self.tasks, self.mode)

    def files_of(self, run: str) -> tuple[Answers, ...]:
        """Return the compared answers of each seed of a run; raise ``KeyError`` for an unknown run."""
        start = 0
        for name, benchmarks in self.labels.items():
            end = start + len(benchmarks[0])
            if name == run:
                return self.aligned.files[start:end]
            start = end
        raise KeyError(run)

    def _refusal_changes(self, first: str, second: str) -> dict[str, Estimate]:
        if not self.over_refusal:
            return {}
        before, after = self.over_refusal[first].resampled, self.over_refusal[second].resampled
        return {name: estimate(after[name] - before[name]) for name in before}

    def _difference(self, first: str, second: str, row: TaskScore) -> Difference:
        column = next(index for index, task in enumerate(self.tasks) if task.name == row.task)
        task = self.tasks[column]
        before, after = (self._labels_of(name, row.benchmark) for name in (first, second))
        binary = {}
        for reading, scores in row.readings.items():
            old, new = (
                [[binary_labels(seed, column, task, reading) for seed in seeds] for seeds in run]
                for run in (before, after)
            )
            flips = count_flips(old, new, column, self.mode)
            binary[reading] = self._changes(first, second, scores, binary_task(task), flips)
        flips = count_flips(before, after, column, self.mode)
        return replace(self._changes(first, second, row, task, flips), readings=binary)

    def _changes(self, first: str, second: str, row: TaskScore, task: Task, flips: Flips) -> Difference:
        before, after = (
            scores.averages[row.task] if row.benchmark == AVERAGE else scores.benchmarks[row.benchmark, row.task]
            for scores in (self.resampled[first], self.resampled[second])
        )
        change = after - before
        f1, accuracy = estimate(positive_f1(change, task)), estimate(change[:, ACCURACY])
        return Difference(row.benchmark, row.task, row.n, f1, accuracy, flips)

    def _labels_of(self, run: str, benchmark: str) -> list[SeedLabels]:
        return [seeds for seeds in self.labels[run] if benchmark in (AVERAGE, seeds[0].benchmark)]


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
        runs: at least two runs with distinct names; the names of all their files must be distinct too.
        tasks: tasks to score.
        mode: how outputs are parsed and how unparsed ones count.
        intersect: whether to compare on the shared records if the files have different records.
        resamples: number of bootstrap resamples; 0 for no intervals.
        seed: seed of the bootstrap.

    Raises:
        InputError: if there are fewer than two runs, if two files have one name, if the files have different records
            (without ``intersect``), or if answers do not fit their records.
    """
    if len(runs) < 2:
        raise InputError(f"a comparison needs at least two runs, got {len(runs)}", "score evaluates a single run")
    names = Counter(answers.name for run in runs for answers in run.seeds)
    if duplicate := next((name for name, count in names.items() if count > 1), None):
        raise InputError(f"{duplicate} is given twice")
    aligned = align([answers for run in runs for answers in run.seeds], intersect)
    files = [
        collect_labels(answers.name, answers.records, answers.rollouts, tasks, PARSER_BY_MODE[mode], answers.format)
        for answers in aligned.files
    ]
    file_scores = resample_scores(files, tasks, mode, resamples, seed)
    file_votes = [
        votes
        for answers in aligned.files
        if (votes := hard_votes(answers.hard_records, answers.hard_rollouts, tasks, mode, answers.format)) is not None
    ]
    file_hard = resample_hard_accuracy(file_votes, resamples, seed) if file_votes else []
    scores: dict[str, ModelScore] = {}
    resampled: dict[str, ResampledScores] = {}
    hard: dict[str, Array] = {}
    labels: dict[str, Sequence[SeedLabels]] = {}
    end = 0
    for run in runs:
        start, end = end, end + len(run.seeds)
        run_files = slice(start, end)
        weights = resampled_seeds(len(run.seeds), resamples, generator_for(seed, f"seeds of {run.name}"))
        resampled[run.name] = mean_over_seeds(file_scores[run_files], weights)
        labels[run.name] = list(zip(*files[run_files], strict=True))
        if file_votes:
            hard[run.name] = weighted_mean(file_hard[run_files], weights)
        run_hard = hard_score(file_votes[run_files], hard[run.name]) if file_votes else None
        records = aligned.files[start].records
        steered = steered_pairs(records, files[run_files], tasks, mode, resamples, seed)
        score = model_score(run.name, files[run_files], resampled[run.name], tasks, run_hard)
        scores[run.name] = replace(score, steerability=steered)
    refusal = over_refusal(
        [run_labels(labels[run.name]) for run in runs], aligned.files[0].records, tasks, mode, resamples, seed
    )
    by_run = {run.name: found for run, found in zip(runs, refusal, strict=True)} if refusal else {}
    return Comparison(tuple(tasks), mode, scores, aligned, resampled, hard, labels, by_run)


def run_labels(labels: Sequence[SeedLabels]) -> list[Sequence[BenchmarkLabels]]:
    """Return labels by seed and benchmark, from those by benchmark and seed."""
    return list(zip(*labels, strict=True))
