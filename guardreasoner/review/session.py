"""One rater's session: items by filter, ratings, skips, undo. Independent of the web application."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from guardreasoner.review.items import ReviewItem, ReviewSet
from guardreasoner.review.ratings import RUBRIC, RatedAnswer, Rating, retraction
from guardreasoner.review.ratings_file import RatingsFile

MAX_NOTE_LENGTH = 10_000
"""Longest note, in characters."""

Marks = Mapping[str, Mapping[str, bool | None]]
"""By slot and question key: True (yes), False (no) or None (no mark)."""


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Which items to show; an item must satisfy every condition that is set.

    Args:
        benchmark: source of the record; empty for any.
        hard: only items in the hard set of at least one run.
        flipped: only items that one run has right and another wrong.
        wrong: only items with a wrong answer.
        unparsed: only items with an answer without a verdict.
        unrated: only items that are neither rated nor skipped.
    """

    benchmark: str = ""
    hard: bool = False
    flipped: bool = False
    wrong: bool = False
    unparsed: bool = False
    unrated: bool = False


FLAGS = ("hard", "flipped", "wrong", "unparsed", "unrated")
"""Names of the yes-or-no conditions of :class:`ItemFilter`."""


class Session:
    """One rater's work on a review set.

    Args:
        review_set: the items to rate.
        file: file that the ratings are written to.
        rater: name of the rater.

    Attributes:
        written: number of ratings and skips written in this session.
        written_skips: number of skips among them.
        undone: number of lines retracted in this session.
        by_other_raters: lines of the file by other raters; they are ignored.
        not_sampled: lines of the file on records outside the sample; they are ignored.
        other_texts: lines of the file on other texts or runs; they are ignored.
    """

    def __init__(self, review_set: ReviewSet, file: RatingsFile, rater: str) -> None:
        self.review_set = review_set
        self.file = file
        self.rater = rater
        self.written = self.written_skips = 0
        self.undone = 0
        self._items = {item.subject: item for item in review_set.items}
        by_rater = [rating for rating in file.ratings.active if rating.rater == rater]
        sampled = [rating for rating in by_rater if rating.record_id not in review_set.not_sampled]
        self._active = [rating for rating in sampled if self._has_same_texts(rating)]
        self.by_other_raters = len(file.ratings.active) - len(by_rater)
        self.not_sampled = len(by_rater) - len(sampled)
        self.other_texts = len(sampled) - len(self._active)
        self._latest = {rating.subject: rating for rating in self._active}

    def latest(self, item: ReviewItem) -> Rating | None:
        """Return the last rating or skip of an item that was not retracted."""
        return self._latest.get(item.subject)

    def counts(self) -> tuple[int, int]:
        """Return the number of rated items and of skipped items."""
        skipped = sum(rating.skipped for rating in self._latest.values())
        return len(self._latest) - skipped, skipped

    def matching(self, item_filter: ItemFilter) -> list[ReviewItem]:
        """Return the items that a filter selects, in order."""
        return [item for item in self.review_set.items if self._matches(item, item_filter)]

    def rate(
        self,
        item: ReviewItem,
        marks: Marks,
        better: str | None = None,
        note: str = "",
        labels: Mapping[str, str | None] | None = None,
    ) -> None:
        """Write a rating.

        Args:
            item: the item.
            marks: yes, no or no mark, by slot and question.
            better: one of the item's choices, or None.
            note: free text; may be empty.
            labels: label by task of an item to label; a task may be left open.

        Raises:
            ValueError: if nothing is rated, if a slot or question is unknown, or if the note is too long.
            OSError: if the rating could not be written; it then does not count.
        """
        slots = [answer.slot for answer in item.answers]
        questions = {question.key for question in RUBRIC}
        if set(marks) - set(slots) or any(set(answer_marks) - questions for answer_marks in marks.values()):
            raise ValueError("unknown answer or question")
        if better is not None and better not in item.choices:
            raise ValueError("better: not one of the answers")
        if len(note) > MAX_NOTE_LENGTH:
            raise ValueError(f"the note is longer than {MAX_NOTE_LENGTH:,} characters")
        allowed = {task.name: task.labels for task in item.tasks}
        given = {name: label for name, label in (labels or {}).items() if label is not None}
        if any(label not in allowed.get(name, ()) for name, label in given.items()):
            raise ValueError("unknown task or label")
        is_marked = any(mark is not None for answer_marks in marks.values() for mark in answer_marks.values())
        if better is None and not is_marked and not given:
            raise ValueError("nothing is rated")
        self._write(self._new_rating(item, marks, better, note, given))

    def skip(self, item: ReviewItem) -> None:
        """Write a skip of an item; raise ``OSError`` if it could not be written."""
        self._write(self._new_rating(item, {}, None, "", {}, skipped=True))

    def undo(self) -> ReviewItem | None:
        """Retract the last active rating or skip; return its item, or None if there is none.

        Raises:
            OSError: if the retraction could not be written; the rating then still counts.
        """
        if not self._active:
            return None
        last = self._active[-1]
        self.file.append(retraction(last, uuid4().hex, _now()))
        self._active.pop()
        self._latest = {rating.subject: rating for rating in self._active}
        self.undone += 1
        return self._items[last.subject]

    def _matches(self, item: ReviewItem, item_filter: ItemFilter) -> bool:
        if item_filter.benchmark and item.record.source != item_filter.benchmark:
            return False
        if item_filter.unrated and item.subject in self._latest:
            return False
        return all(getattr(item, flag) for flag in FLAGS[:-1] if getattr(item_filter, flag))

    def _has_same_texts(self, rating: Rating) -> bool:
        item = self._items.get(rating.subject)
        return item is not None and item.text_hashes() == rating.text_hashes()

    def _new_rating(
        self,
        item: ReviewItem,
        marks: Marks,
        better: str | None,
        note: str,
        labels: Mapping[str, str],
        skipped: bool = False,
    ) -> Rating:
        questions = () if item.question else RUBRIC
        answers = {
            answer.slot: RatedAnswer(
                answer.run,
                answer.text_hash,
                {question.key: marks.get(answer.slot, {}).get(question.key) for question in questions},
            )
            for answer in item.answers
        }
        ids = (uuid4().hex, item.record.id, item.record.source, item.conversation_hash)
        chosen = {task.name: labels.get(task.name) for task in item.tasks} if item.tasks else None
        return Rating(*ids, answers, better, note, self.rater, _now(), skipped, item.question, chosen)

    def _write(self, rating: Rating) -> None:
        self.file.append(rating.line())
        self._active.append(rating)
        self._latest[rating.subject] = rating
        self.written += 1
        self.written_skips += rating.skipped


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
