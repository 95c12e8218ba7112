"""Build the items to rate from runs: what the page shows of each record, in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison.alignment import Answers, align
from guardreasoner.evaluation.scoring.labels import NO_LABEL, collect_labels, label_name
from guardreasoner.records import Record
from guardreasoner.review.ratings import ALL_LABELS, DECISIONS, SLOTS, TIE, LabelQuestion, conversation_hash, text_hash
from guardreasoner.sources.named_predictions import NamedPredictions, common_tasks
from guardreasoner.tasks import Task


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One answer as the page shows it.

    Args:
        slot: letter that stands for the run on the page.
        run: name of the run, which the page does not show.
        completion: text of the answer.
        verdicts: verdict by task; None for no verdict.
        text_hash: hash of the completion.
    """

    slot: str
    run: str
    completion: str
    verdicts: Mapping[str, str | None]
    text_hash: str


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One record to rate.

    Args:
        number: position of the record on the page, from 1.
        record: conversation and gold labels.
        conversation_hash: hash of the conversation and its policy.
        answers: answers in the order of the page.
        hard: whether the record is in the hard set of at least one run.
        flipped: whether, on some task, one run is right and another wrong.
        wrong: whether some answer is wrong or unparsed on a task with a gold label.
        unparsed: whether some answer has no verdict for a task with a gold label.
        question: the label to decide on; None if the answers are to be rated.
        evidence: which outputs contradict that label, in words.
        tasks: tasks to label; empty if the answers, or one label, are to be rated.
    """

    number: int
    record: Record
    conversation_hash: str
    answers: tuple[ShownAnswer, ...]
    hard: bool = False
    flipped: bool = False
    wrong: bool = False
    unparsed: bool = False
    question: LabelQuestion | None = None
    evidence: str = ""
    tasks: tuple[Task, ...] = ()

    @property
    def subject(self) -> tuple[str, str]:
        """What a rating of the item is about, in the form of ``Rating.subject``."""
        return self.record.id, ALL_LABELS if self.tasks else self.question.task if self.question else ""

    @property
    def choices(self) -> tuple[str, ...]:
        """Values that the rater chooses from, besides the marks of each answer."""
        if self.question is not None:
            return DECISIONS
        return (*(answer.slot for answer in self.answers), TIE) if len(self.answers) > 1 else ()

    def text_hashes(self) -> dict[str, str]:
        """Return, by run, the hashes of the conversation and the answer, in the form of ``Rating.text_hashes``."""
        if self.tasks:
            return {ALL_LABELS: self.conversation_hash}
        if self.question is not None:
            return self.question.text_hashes(self.conversation_hash)
        return {answer.run: f"{self.conversation_hash}/{answer.text_hash}" for answer in self.answers}

    @property
    def key(self) -> str:
        """Hash of the subject and of all texts in the order of the page; the browser stores drafts under it."""
        return text_hash([self.subject, self.conversation_hash, *(answer.text_hash for answer in self.answers)])


@dataclass(frozen=True, slots=True)
class ReviewSet:
    """Records to rate, in a random order that depends only on seed and record id; or labels, in the order of a file.

    Args:
        tasks: tasks of the runs.
        runs: names of the runs, in the given order.
        items: the items, in the order of their ``number``.
        left_out: by run, number of its records that not all runs have.
        not_sampled: ids of the shared records outside the sample.
        same: ids of the shared records to which all of several runs gave the same answer; nothing to rate.
    """

    tasks: tuple[Task, ...]
    runs: tuple[str, ...]
    items: tuple[ReviewItem, ...]
    left_out: Mapping[str, int]
    not_sampled: frozenset[str]
    same: frozenset[str] = frozenset()


def make_review_set(
    named: Sequence[NamedPredictions],
    rater: str,
    intersect: bool = False,
    sample: int | None = None,
    seed: int = 0,
    keep_same: bool = False,
) -> ReviewSet:
    """Build the items to rate from runs.

    The order of records is the same for all raters, so that raters who stop early have rated the same records. The
    order of the answers depends on the rater, so that a shared bias for the left column does not look like agreement.

    Args:
        named: one to five runs.
        rater: name of the rater.
        intersect: whether to use the records that all runs have if some runs lack records; otherwise that is an error.
        sample: number of records to rate, the first ones in the random order; None for all records.
        seed: seed of both orders.
        keep_same: whether to keep records to which all of several runs gave the same answer, which leave nothing to
            compare.

    Raises:
        InputError: if there are more than five runs, if the runs have different records (without ``intersect``), or if
            the sample is larger than the number of records to rate, or if there is none.
    """
    if len(named) > len(SLOTS):
        raise InputError(f"review: expected at most {len(SLOTS)} runs, got {len(named)}")
    tasks, runs = common_tasks(named), tuple(run.name for run in named)
    aligned = align(
        [Answers(run.name, run.seeds[0].records, run.seeds[0].rollouts, format=run.seeds[0].format) for run in named],
        intersect,
    )
    predicted, gold = _labels_by_record(aligned.files, tasks)
    hard_ids = {record.id for run in named for record in run.seeds[0].hard_records}
    completions = [{answer.record_id: answer.completion for answer in answers.rollouts} for answers in aligned.files]
    records = sorted(aligned.files[0].records, key=lambda record: text_hash([seed, record.id]))
    same: frozenset[str] = frozenset()
    if len(runs) > 1 and not keep_same:
        same = frozenset(r.id for r in records if len({texts[r.id] for texts in completions}) == 1)
        records = [record for record in records if record.id not in same]
        if not records:
            raise InputError(f"review: {', '.join(runs)} gave the same answers to all {len(same):,} records")
    if sample is not None and sample > len(records):
        differing = f" with different answers, and {len(same)} with the same" if same else ""
        raise InputError(f"review: --sample {sample}: there are {len(records)} records{differing}")
    items = []
    for number, record in enumerate(records[:sample], start=1):
        run_order = sorted(range(len(runs)), key=lambda run: text_hash([seed, rater, record.id, runs[run]]))
        gold_labels = gold[record.id]
        verdicts = [predicted[run][record.id] for run in runs]
        correct = [[verdict == label for verdict, label in zip(row, gold_labels, strict=True)] for row in verdicts]
        labelled = [column for column, label in enumerate(gold_labels) if label != NO_LABEL]
        answers = [
            ShownAnswer(
                SLOTS[position],
                runs[run],
                completions[run][record.id],
                {task.name: label_name(index, task) for task, index in zip(tasks, verdicts[run], strict=True)},
                text_hash(completions[run][record.id]),
            )
            for position, run in enumerate(run_order)
        ]
        items.append(
            ReviewItem(
                number,
                record,
                conversation_hash(record),
                tuple(answers),
                hard=record.id in hard_ids,
                flipped=any(len({row[column] for row in correct}) > 1 for column in labelled),
                wrong=any(not row[column] for row in correct for column in labelled),
                unparsed=any(row[column] == NO_LABEL for row in verdicts for column in labelled),
            )
        )
    not_sampled = frozenset(record.id for record in records[len(items) :])
    return ReviewSet(tasks, runs, tuple(items), aligned.left_out, not_sampled, same)


def _labels_by_record(
    files: Sequence[Answers], tasks: Sequence[Task]
) -> tuple[dict[str, dict[str, list[int]]], dict[str, list[int]]]:
    """Return label indices by task: of the verdicts by run and record id, and of the gold labels by record id."""
    predicted: dict[str, dict[str, list[int]]] = {}
    gold: dict[str, list[int]] = {}
    for answers in files:
        rows: dict[str, list[int]] = {}
        for labels in collect_labels(answers.name, answers.records, answers.rollouts, tasks, format=answers.format):
            rows |= zip(labels.ids, labels.predicted.tolist(), strict=True)
            gold |= zip(labels.ids, labels.gold.tolist(), strict=True)
        predicted[answers.name] = rows
    return predicted, gold
