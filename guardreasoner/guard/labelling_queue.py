"""Choose the conversations of a moderation whose labels are most informative for training, and add a random share."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal

from guardreasoner.errors import InputError
from guardreasoner.guard.moderation_summary import read_rows
from guardreasoner.records import write_jsonl
from guardreasoner.sources.logs import LogRow
from guardreasoner.tasks import Task

Reason = Literal["disagreement", "unparsed", "review", "unsure", "random"]
"""Why a conversation is in the queue: two answers differ in what they flag, an answer has no clear verdict, a score is
in the review band or, without a calibration, near 0.5; or the conversation was drawn at random."""

INFORMATIVE: tuple[Reason, ...] = ("disagreement", "unparsed", "review", "unsure")

KIND = "guardreasoner labelling queue"
"""Value of ``kind`` in the first line of a queue, which names the tasks."""

_UNSURE = 0.25
"""Distance from 0.5 within which a score is unsure."""


@dataclass(frozen=True, slots=True, order=True)
class _Candidate:
    value: float
    tie: str
    content: str
    number: int
    reason: Reason


class _Best:
    """The candidates with the largest values, of different contents.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[_Candidate] = []
        self._contents: set[str] = set()

    def add(self, candidate: _Candidate) -> None:
        """Keep a candidate if it is among the best and the first of its content."""
        if not self._size or candidate.content in self._contents:
            return
        self._contents.add(candidate.content)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, candidate)
        else:
            self._contents.remove(heapq.heappushpop(self._heap, candidate).content)

    def ranked(self) -> list[_Candidate]:
        """Return the candidates, the best one first."""
        return sorted(self._heap, reverse=True)


def write_queue(
    path: Path,
    moderated: Path,
    rows: Iterable[LogRow],
    tasks: Sequence[Task],
    size: int,
    random_share: float = 0.2,
    seed: int = 0,
) -> Counter[Reason]:
    """Write a labelling queue, which ``review --label`` opens.

    The informative part takes turns among the reasons, and for each takes the most informative rows first. If it is too
    small, further rows are drawn at random. Of equal conversations only one is chosen. The memory depends on the size
    of the queue alone.

    Args:
        path: the file to write.
        moderated: output of the moderation.
        rows: the conversations of the logs, in the order of the output.
        tasks: tasks to label.
        size: most conversations in the queue.
        random_share: share of the queue that is drawn at random from all different conversations, so that rates can be
            estimated from its labels.
        seed: seed of the draw.

    Returns:
        The number of conversations by reason.

    Raises:
        InputError: the logs have fewer conversations than the output.
    """
    chosen = _chosen(moderated, tasks, size, ceil(random_share * size), seed)
    queue: list[dict[str, Any]] = []
    ids: set[str] = set()
    wanted = dict(chosen)
    for number, row in enumerate(rows):
        if (reason := wanted.pop(number, None)) is not None:
            record = row.record if row.record.id not in ids else replace(row.record, id=row.place)
            ids.add(record.id)
            queue.append({"reason": reason, "row": row.place, "record": record.as_json()})
        if not wanted:
            break
    if wanted:
        raise InputError(f"{moderated}: has more rows than the logs hold conversations")
    head = {"kind": KIND, "tasks": [task.as_json() for task in tasks], "random_share": random_share, "seed": seed}
    write_jsonl(path, [head, *queue])
    return Counter(chosen.values())


def _chosen(moderated: Path, tasks: Sequence[Task], size: int, random_size: int, seed: int) -> dict[int, Reason]:
    """Return why each chosen row was chosen, by its number."""
    best = {reason: _Best(size) for reason in INFORMATIVE}
    drawn = _Best(size)
    for number, row in enumerate(read_rows(moderated)):
        content = row["content"]
        tie = hashlib.sha256(f"{seed}\0{content}".encode()).hexdigest()
        drawn.add(_Candidate(0.0, tie, content, number, "random"))
        if (found := _reason(row, tasks)) is not None:
            reason, value = found
            best[reason].add(_Candidate(value, tie, content, number, reason))
    at_random = drawn.ranked()
    chosen = {one.content: one for one in at_random[:random_size]}
    ranked = [best[reason].ranked() for reason in INFORMATIVE]
    for place in range(size):
        for candidates in ranked:
            if place < len(candidates) and len(chosen) < size:
                chosen.setdefault(candidates[place].content, candidates[place])
    for candidate in at_random[random_size:]:
        if len(chosen) < size:
            chosen.setdefault(candidate.content, candidate)
    return {one.number: one.reason for one in chosen.values()}


def _reason(row: Mapping[str, Any], tasks: Sequence[Task]) -> tuple[Reason, float] | None:
    """Return why a row is informative, and how much; None if it is not."""
    if "second" in row and row["flagged"] != row["second"]["flagged"]:
        return "disagreement", row["disagreement"] if row["disagreement"] is not None else 1.0
    if row["unparsed"]:
        return "unparsed", 0.0
    answers = [row["tasks"][task.name] for task in tasks if task.flags and task.name in row["tasks"]]
    review = [answer["score"] for answer in answers if answer["band"] == "review"]
    if review:
        return "review", max(review)
    unsure = [abs(answer["score"] - 0.5) for answer in answers if answer["score"] is not None and not answer["band"]]
    if unsure and min(unsure) < _UNSURE:
        return "unsure", -min(unsure)
    return None
