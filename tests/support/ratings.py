"""Ratings made on the spot, in few words."""

from datetime import UTC, datetime, timedelta
from itertools import count

from guardreasoner.review.ratings import RUBRIC, SLOTS, TIE, Judged, Rating

_NUMBERS = count()
_START = datetime(2025, 3, 1, tzinfo=UTC)


def rating(record_id: str, rater: str = "ann", better: str | None = None, text: str = "t", **says: str) -> Rating:
    """Return a rating; ``says`` has by run a letter an item: y, n, or - for nothing; ``better`` is a run or a tie."""
    number = next(_NUMBERS)
    answers = {
        slot: Judged(run, f"{text} {run}", {item.key: _says(one) for item, one in zip(RUBRIC, letters, strict=True)})
        for slot, (run, letters) in zip(SLOTS, says.items(), strict=False)
    }
    slots = {one.run: slot for slot, one in answers.items()} | {TIE: TIE}
    time = (_START + timedelta(seconds=number)).isoformat()
    return Rating(str(number), record_id, "home", "c", answers, better and slots[better], "", rater, time)


def _says(letter: str) -> bool | None:
    return {"y": True, "n": False, "-": None}[letter]
