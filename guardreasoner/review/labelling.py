"""Read a labelling queue, as ``moderate --to_review`` writes it, and turn the labels given to it into records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.guard.labelling_queue import KIND
from guardreasoner.guard.results import applies
from guardreasoner.records import Record, record_of
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.review.items import ReviewItem, ReviewSet
from guardreasoner.review.ratings import Ratings, conversation_hash
from guardreasoner.tasks import Task


@dataclass(frozen=True, slots=True)
class Labelled:
    """Records with the labels that people gave.

    Args:
        records: records with at least one label, in the order of the queue.
        conflicts: number of labels on which raters differ; they are left out.
        unlabelled: number of conversations of the queue without a label.
    """

    records: tuple[Record, ...]
    conflicts: int
    unlabelled: int


def read_queue(path: Path, sample: int | None = None) -> ReviewSet:
    """Return the conversations of a queue to label, in the order of the file.

    The page shows neither the guard's answer nor why a conversation is in the queue, which would sway the rater.

    Args:
        path: the file.
        sample: number of conversations, the first ones; None for all.

    Raises:
        InputError: the file is missing, or is no labelling queue (file:line).
    """
    items: list[ReviewItem] = []
    ids: set[str] = set()
    tasks: tuple[Task, ...] | None = None
    for line, row in read_jsonl(path):
        where = f"{path}:{line}"
        if tasks is None:
            tasks = _tasks(row, where)
            continue
        if "record" not in row:
            raise InputError(f"{where}: missing field 'record'", "expected a file that moderate --to_review wrote")
        record = record_of(row["record"], f"{where}: record")
        if record.id in ids:
            raise InputError(f"{where}: the record {record.id!r} occurs twice")
        ids.add(record.id)
        asked = tuple(task for task in tasks if applies(task, record))
        items.append(ReviewItem(len(items) + 1, record, conversation_hash(record), (), tasks=asked))
    if not items:
        raise InputError(f"{path}: the file has no conversation to label")
    if sample is not None and sample > len(items):
        raise InputError(f"review: --sample {sample}: there are {len(items)} conversations")
    shown = tuple(items)[:sample]
    return ReviewSet((), (), shown, {}, frozenset(ids - {item.record.id for item in shown}))


def labelled_records(review_set: ReviewSet, ratings: Ratings) -> Labelled:
    """Return the records of a queue with the labels that one or more raters gave, without those on which they differ.

    Args:
        review_set: the queue.
        ratings: the ratings files of the raters.
    """
    given: dict[tuple[str, str], list[Mapping[str, str | None]]] = {}
    for rating in ratings.latest():
        if rating.labels is not None:
            given.setdefault((rating.record_id, rating.conversation), []).append(rating.labels)
    records = []
    conflicts = 0
    for item in review_set.items:
        labels = {}
        for task in item.tasks:
            rows = given.get((item.record.id, item.conversation_hash), [])
            found = {label for row in rows if (label := row.get(task.name)) in task.labels}
            conflicts += len(found) > 1
            if len(found) == 1:
                labels[task.name] = found.pop()
        if labels:
            records.append(replace(item.record, labels=labels))
    return Labelled(tuple(records), conflicts, len(review_set.items) - len(records))


def _tasks(head: Mapping[str, object], where: str) -> tuple[Task, ...]:
    """Return the tasks that the first line of a queue names."""
    tasks = head.get("tasks")
    if head.get("kind") != KIND or not isinstance(tasks, Sequence) or not tasks:
        raise InputError(f"{where}: not a labelling queue", "expected a file that moderate --to_review wrote")
    try:
        return tuple(map(Task.from_json, tasks))
    except (TypeError, InputError) as error:
        raise InputError(f"{where}: tasks: {error}") from None
