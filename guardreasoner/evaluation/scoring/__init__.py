"""One model's answers to its score: F1 per class, accuracy, hard-sample accuracy, with intervals.

numpy only, as in all that this needs, so that scoring a file takes no torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.evaluation.intervals import RESAMPLES, Estimate, estimate
from guardreasoner.evaluation.scoring.hard_samples import HardScore, draw_hard, hard_score, hard_votes
from guardreasoner.evaluation.scoring.outcomes import NONE, READING, BenchmarkLabels, Confusion, Mode, confusions, judge
from guardreasoner.evaluation.scoring.tallies import ACCURACY, F1, FALSE_POSITIVES, RECALL, Array, Drawn, draw
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import Task

AVERAGE = "average"
"""What a score over several benchmarks has for the name of its benchmark."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One task, on one benchmark or averaged over several; figures are in percent, with intervals.

    Args:
        benchmark: source of the records; ``AVERAGE`` over several.
        task: name of the task.
        positive: the label whose F1 the paper reports.
        n: records with a gold label.
        unparsed: answers without a verdict for this task.
        accuracy: share of right answers; undefined where no answer was counted.
        f1: by label; undefined for a label that no record has, since its recall is.
        recall: share of the positive records that were found.
        false_positive_rate: share of the other records that were called positive.
    """

    benchmark: str
    task: str
    positive: str
    n: int
    unparsed: int
    accuracy: Estimate
    f1: Mapping[str, Estimate]
    recall: Estimate
    false_positive_rate: Estimate

    @property
    def positive_f1(self) -> Estimate:
        """F1 of the positive label."""
        return self.f1[self.positive]


@dataclass(frozen=True, slots=True)
class ModelScore:
    """What one model's predictions are worth.

    Args:
        model: its name.
        records: how many were answered.
        accuracy: percentage of records whose answer meets every gold label. An unparsable answer is wrong, but in
            ``drop``, where it is left out.
        unparsed: answers without a verdict for some task with a gold label.
        benchmarks: a score per benchmark and task.
        averages: by task, the mean over benchmarks, weighted by their records (as the paper's tables 2, 5 and 8).
        overall: the plain mean of the tasks' average F1 of the positive label (as the paper's table 10).
        hard: on the hard records, where there are outputs for them.
        confusions: a matrix per task, over all benchmarks; those of several files add up.
    """

    model: str
    records: int
    accuracy: Estimate
    unparsed: int
    benchmarks: tuple[TaskScore, ...]
    averages: tuple[TaskScore, ...]
    overall: Estimate
    hard: HardScore | None
    confusions: tuple[Confusion, ...] = ()


def score(
    model: str,
    records: Sequence[Record],
    answers: Iterable[Rollout],
    tasks: Sequence[Task],
    mode: Mode = "strict",
    hard_records: Sequence[Record] = (),
    hard_answers: Iterable[Rollout] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ModelScore:
    """Score one model's answers, one a record; a record's ``source`` is its benchmark.

    Records are drawn again within their benchmark, whole: a record with several tasks is in or out with all of them.

    Args:
        model: name of the row.
        records: with gold labels.
        answers: one output for each of them, in any order.
        tasks: what may be answered.
        mode: how outputs are read and unparsable ones counted.
        hard_records: the hard set.
        hard_answers: any number of outputs for each hard record.
        resamples: how many the intervals are made of; 0 for no intervals.
        seed: of the resampling.

    Raises:
        InputError: no records, a record without a gold label or with none or two answers, or an answer of an unknown
            record.
    """
    outcomes = judge(model, records, answers, tasks, READING[mode])
    (drawn,) = draw([outcomes], tasks, mode, resamples, seed)
    votes = hard_votes(hard_records, hard_answers, tasks, mode)
    hard = hard_score([votes], *draw_hard([votes], resamples, seed)) if votes else None
    return model_score(model, [outcomes], drawn, tasks, hard)


def model_score(
    model: str,
    files: Sequence[Sequence[BenchmarkLabels]],
    drawn: Drawn,
    tasks: Sequence[Task],
    hard: HardScore | None,
) -> ModelScore:
    """Return drawn figures with their intervals and counts.

    Args:
        model: name of the row.
        files: outcomes by benchmark of each file that the figures are a mean of, all with the same records; unparsed
            answers and confusion counts add up.
        drawn: the figures.
        tasks: what was answered.
        hard: the score on the hard set.
    """
    benchmarks = []
    for same in zip(*files, strict=True):
        for place, task in enumerate(tasks):
            values = drawn.benchmarks.get((same[0].benchmark, task.name))
            if values is not None:
                n, unparsed = _labelled(same[0], place), sum(_unparsed(one, place) for one in same)
                benchmarks.append(_task_score(same[0].benchmark, task, values, n, unparsed))
    averages = []
    for task in tasks:
        if parts := [row for row in benchmarks if row.task == task.name]:
            n, unparsed = sum(row.n for row in parts), sum(row.unparsed for row in parts)
            averages.append(_task_score(AVERAGE, task, drawn.averages[task.name], n, unparsed))
    return ModelScore(
        model=model,
        records=sum(len(one.ids) for one in files[0]),
        accuracy=estimate(drawn.accuracy),
        unparsed=sum(int(one.unparsed().sum()) for file in files for one in file),
        benchmarks=tuple(benchmarks),
        averages=tuple(averages),
        overall=estimate(drawn.overall(tasks)),
        hard=hard,
        confusions=confusions([one for file in files for one in file], tasks),
    )


def _task_score(benchmark: str, task: Task, values: Array, n: int, unparsed: int) -> TaskScore:
    return TaskScore(
        benchmark=benchmark,
        task=task.name,
        positive=task.positive,
        n=n,
        unparsed=unparsed,
        accuracy=estimate(values[:, ACCURACY]),
        f1={label: estimate(values[:, F1 + place]) for place, label in enumerate(task.labels)},
        recall=estimate(values[:, RECALL]),
        false_positive_rate=estimate(values[:, FALSE_POSITIVES]),
    )


def _labelled(outcomes: BenchmarkLabels, place: int) -> int:
    return int((outcomes.gold[:, place] != NONE).sum())


def _unparsed(outcomes: BenchmarkLabels, place: int) -> int:
    return int(((outcomes.gold[:, place] != NONE) & (outcomes.found[:, place] == NONE)).sum())
