"""Runs to cases: what is shown of each record, in which order, and whose answers they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison.alignment import Answers, align
from guardreasoner.evaluation.scoring.outcomes import NONE, judge
from guardreasoner.records import Record
from guardreasoner.review.ratings import SLOTS, conversation_hash, text_hash
from guardreasoner.sources.named_predictions import NamedPredictions, common_tasks
from guardreasoner.tasks import Task


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer as it stands on the page.

    Args:
        slot: a letter, in place of the run's name.
        run: that name, which stays on this side.
        completion: what the model wrote.
        verdicts: what is read from it, by task; None for no verdict.
        text: hash of the completion.
    """

    slot: str
    run: str
    completion: str
    verdicts: Mapping[str, str | None]
    text: str


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One record to rate.

    Args:
        number: its place, from 1.
        record: the conversation with its gold labels.
        conversation: hash of prompt and response.
        answers: in the order of the page.
        hard: it is in the hard set of at least one run.
        flipped: on some task one run is right and another wrong.
        wrong: some answer does not meet all gold labels; without a verdict it does not.
        unparsed: some answer has no verdict for a task with a gold label.
    """

    number: int
    record: Record
    conversation: str
    answers: tuple[Shown, ...]
    hard: bool
    flipped: bool
    wrong: bool
    unparsed: bool

    def texts(self) -> dict[str, str]:
        """Return a hash of the conversation and each answer, by run, as ``Rating.texts`` does."""
        return {one.run: f"{self.conversation}/{one.text}" for one in self.answers}

    @property
    def key(self) -> str:
        """Stands for the texts in the order in which they are shown."""
        return text_hash([self.conversation, *(one.text for one in self.answers)])


@dataclass(frozen=True, slots=True)
class Cases:
    """Records to rate, in a random order that seed and id alone decide.

    Args:
        tasks: what was asked.
        runs: names, as they were given.
        all: the cases; ``number`` is their place.
        left_out: by run, records that not all runs have.
        not_drawn: ids of the records that all have and that are not among the sample.
    """

    tasks: tuple[Task, ...]
    runs: tuple[str, ...]
    all: tuple[ReviewItem, ...]
    left_out: Mapping[str, int]
    not_drawn: frozenset[str]


def make_cases(
    named: Sequence[NamedPredictions], rater: str, intersect: bool = False, sample: int | None = None, seed: int = 0
) -> Cases:
    """Make cases of runs.

    The order of records is the same for all raters, so that those who stop early have rated the same ones; the order of
    answers is each rater's own, so that a liking for the left is not taken for agreement.

    Args:
        named: the runs, one to five.
        rater: who rates.
        intersect: take the records that all have, instead of refusing where some lack records.
        sample: how many records to draw; the first so many of the order.
        seed: of both orders.

    Raises:
        InputError: too many runs, other records, or a sample of more records than there are.
    """
    if len(named) > len(SLOTS):
        raise InputError(f"review: takes {len(SLOTS)} runs at most, got {len(named)}")
    tasks, runs = common_tasks(named), tuple(one.name for one in named)
    aligned = align([Answers(one.name, one.seeds[0].records, one.seeds[0].rollouts) for one in named], intersect)
    found, gold = _places(aligned.files, tasks)
    hard = {record.id for one in named for record in one.seeds[0].hard_records}
    completions = [{answer.record_id: answer.completion for answer in one.rollouts} for one in aligned.files]
    records = sorted(aligned.files[0].records, key=lambda record: text_hash([seed, record.id]))
    if sample is not None and sample > len(records):
        raise InputError(f"review: --sample {sample}: there are {len(records)} records")
    cases = []
    for number, record in enumerate(records[:sample], start=1):
        order = sorted(range(len(runs)), key=lambda place: text_hash([seed, rater, record.id, runs[place]]))
        labels = gold[record.id]
        said = [found[run][record.id] for run in runs]
        right = [[word == label for word, label in zip(words, labels, strict=True)] for words in said]
        graded = [task for task, label in enumerate(labels) if label != NONE]
        answers = [
            Shown(
                SLOTS[place],
                runs[run],
                completions[run][record.id],
                {task.name: _word(word, task) for task, word in zip(tasks, said[run], strict=True)},
                text_hash(completions[run][record.id]),
            )
            for place, run in enumerate(order)
        ]
        cases.append(
            ReviewItem(
                number,
                record,
                conversation_hash(record),
                tuple(answers),
                hard=record.id in hard,
                flipped=any(len({of[task] for of in right}) > 1 for task in graded),
                wrong=any(not of[task] for of in right for task in graded),
                unparsed=any(words[task] == NONE for words in said for task in graded),
            )
        )
    rest = frozenset(record.id for record in records[len(cases) :])
    return Cases(tasks, runs, tuple(cases), aligned.left_out, rest)


def _places(
    files: Sequence[Answers], tasks: Sequence[Task]
) -> tuple[dict[str, dict[str, list[int]]], dict[str, list[int]]]:
    """Return by run and record the places of verdicts among the labels, and by record those of the gold labels."""
    found: dict[str, dict[str, list[int]]] = {}
    gold: dict[str, list[int]] = {}
    for one in files:
        outcomes = judge(one.name, one.records, one.rollouts, tasks)
        found[one.name] = {name: row for of in outcomes for name, row in zip(of.ids, of.found.tolist(), strict=True)}
        gold |= {name: row for of in outcomes for name, row in zip(of.ids, of.gold.tolist(), strict=True)}
    return found, gold


def _word(place: int, task: Task) -> str | None:
    return None if place == NONE else task.labels[place]
