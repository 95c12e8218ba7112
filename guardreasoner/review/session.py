"""What a rater has done and can do: cases by filter, ratings, skips, undo. It knows nothing of the web."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from guardreasoner.review.cases import Cases, ReviewItem
from guardreasoner.review.ratings import RUBRIC, TIE, Judged, Rating, retraction
from guardreasoner.review.ratings_file import RatingsFile

NOTE_LENGTH = 10_000
"""Characters that a note may have."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which cases to show: those that are everything that is asked for.

    Args:
        benchmark: where the record is from; empty for anywhere.
        hard, flipped, wrong, unparsed: as in :class:`ReviewItem`.
        unrated: neither rated nor skipped.
    """

    benchmark: str = ""
    hard: bool = False
    flipped: bool = False
    wrong: bool = False
    unparsed: bool = False
    unrated: bool = False


FLAGS = ("hard", "flipped", "wrong", "unparsed", "unrated")


class Session:
    """One rater's work on cases.

    Args:
        cases: what there is to rate.
        file: where ratings are kept.
        rater: who rates.

    What the file holds and does not count here: ``of_others``, by other raters; ``not_drawn``, on records outside the
    sample; ``of_other_texts``, on other texts or runs.
    """

    def __init__(self, cases: Cases, file: RatingsFile, rater: str) -> None:
        self.cases = cases
        self.file = file
        self.rater = rater
        self.written = self.written_skips = 0
        self.undone = 0
        self._case_of = {case.record.id: case for case in cases.all}
        mine = [one for one in file.found.standing if one.rater == rater]
        drawn = [one for one in mine if one.record_id not in cases.not_drawn]
        self._standing = [one for one in drawn if self._is_of_these_texts(one)]
        self.of_others = len(file.found.standing) - len(mine)
        self.not_drawn = len(mine) - len(drawn)
        self.of_other_texts = len(drawn) - len(self._standing)
        self._latest = {one.record_id: one for one in self._standing}

    def latest(self, case: ReviewItem) -> Rating | None:
        """Return what was said of a case last, and not taken back."""
        return self._latest.get(case.record.id)

    def counts(self) -> tuple[int, int]:
        """Return how many cases are rated, and how many skipped."""
        skipped = sum(one.skipped for one in self._latest.values())
        return len(self._latest) - skipped, skipped

    def matching(self, wanted: Filter) -> list[ReviewItem]:
        """Return the cases that a filter lets through, in order."""
        return [case for case in self.cases.all if self._matches(case, wanted)]

    def rate(
        self, case: ReviewItem, says: Mapping[str, Mapping[str, bool | None]], better: str | None = None, note: str = ""
    ) -> None:
        """Write a rating.

        Args:
            case: what is rated.
            says: yes, no or nothing, by slot and item.
            better: a slot, ``TIE``, or None.
            note: may be empty.

        Raises:
            ValueError: nothing is said, a slot or item is unknown, or the note is too long.
            OSError: it could not be written, and does not count.
        """
        slots = [one.slot for one in case.answers]
        if set(says) - set(slots) or any(set(of) - {item.key for item in RUBRIC} for of in says.values()):
            raise ValueError("an answer or question that is not on the page")
        if better is not None and (len(slots) < 2 or better not in (*slots, TIE)):
            raise ValueError("better: none of the answers")
        if len(note) > NOTE_LENGTH:
            raise ValueError(f"the note is longer than {NOTE_LENGTH:,} characters")
        if better is None and all(value is None for of in says.values() for value in of.values()):
            raise ValueError("nothing is rated")
        self._write(self._rating(case, says, better, note))

    def skip(self, case: ReviewItem) -> None:
        """Write that nothing is to be said of a case; raise ``OSError`` where it could not be written."""
        self._write(self._rating(case, {}, None, "", skipped=True))

    def undo(self) -> ReviewItem | None:
        """Take back the last rating or skip that stands; return its case, or None where there is none.

        Raises:
            OSError: it could not be written, and still stands.
        """
        if not self._standing:
            return None
        last = self._standing[-1]
        self.file.append(retraction(last, uuid4().hex, _now()))
        self._standing.pop()
        self._latest = {one.record_id: one for one in self._standing}
        self.undone += 1
        return self._case_of[last.record_id]

    def _matches(self, case: ReviewItem, wanted: Filter) -> bool:
        if wanted.benchmark and case.record.source != wanted.benchmark:
            return False
        if wanted.unrated and case.record.id in self._latest:
            return False
        return all(getattr(case, flag) for flag in FLAGS[:-1] if getattr(wanted, flag))

    def _is_of_these_texts(self, one: Rating) -> bool:
        case = self._case_of.get(one.record_id)
        return case is not None and case.texts() == one.texts()

    def _rating(
        self,
        case: ReviewItem,
        says: Mapping[str, Mapping[str, bool | None]],
        better: str | None,
        note: str,
        skipped: bool = False,
    ) -> Rating:
        answers = {
            one.slot: Judged(one.run, one.text, {item.key: says.get(one.slot, {}).get(item.key) for item in RUBRIC})
            for one in case.answers
        }
        record = case.record
        about = (uuid4().hex, record.id, record.source, case.conversation)
        return Rating(*about, answers, better, note, self.rater, _now(), skipped)

    def _write(self, rating: Rating) -> None:
        self.file.append(rating.line())
        self._standing.append(rating)
        self._latest[rating.record_id] = rating
        self.written += 1
        self.written_skips += rating.skipped


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
