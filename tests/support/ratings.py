"""Short notation for ratings."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from guardreasoner.review.ratings import RUBRIC, SLOTS, TIE, RatedAnswer, Rating

_NUMBERS = count()
_START = datetime(2025, 3, 1, tzinfo=UTC)
_MARKS = {"y": True, "n": False, "-": None}


def rating(record_id: str, rater: str = "ann", better: str | None = None, text: str = "t", **marks: str) -> Rating:
    """Return a rating, one second later than the one before.

    Args:
        record_id: id of the record.
        rater: name of the rater.
        better: name of the better run, ``TIE`` or None.
        text: prefix of the hashes of the answers.
        **marks: by run, a letter for each question of the rubric: y, n, or - for no mark.
    """
    number = next(_NUMBERS)
    answers = {
        slot: RatedAnswer(
            run,
            f"{text} {run}",
            {question.key: _MARKS[letter] for question, letter in zip(RUBRIC, letters, strict=True)},
        )
        for slot, (run, letters) in zip(SLOTS, marks.items(), strict=False)
    }
    slots = {answer.run: slot for slot, answer in answers.items()} | {TIE: TIE}
    time = (_START + timedelta(seconds=number)).isoformat()
    return Rating(str(number), record_id, "home", "c", answers, better and slots[better], "", rater, time)


def write_ratings(path: Path, *lines: Rating | dict[str, Any]) -> Path:
    """Write a ratings file of ratings and of other JSON objects; return its path."""
    rows = (line.line() if isinstance(line, Rating) else line for line in lines)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
