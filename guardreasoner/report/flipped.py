"""Examples of records that flipped between two runs: a few of each direction, with what both runs wrote."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.evaluation.comparison import Comparison
from guardreasoner.evaluation.comparison.flips import Flip

_NAME = (60, 20)
_PROMPT = (900, 300)
_OUTPUT = (3000, 1000)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A text: whole, or its beginning and its end with the number of characters between them."""

    head: str
    left_out: int = 0
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """What one run made of a record.

    Args:
        run: its name.
        verdicts: in words, of the tasks that flipped.
        right: whether those are right.
        seed: which of several seeds wrote the output; empty where there is one.
        output: what it wrote.
    """

    run: str
    verdicts: str
    right: bool
    seed: str
    output: Excerpt


@dataclass(frozen=True, slots=True)
class FlippedRecord:
    """A record that flipped, with its gold labels of the tasks that did."""

    record_id: Excerpt
    benchmark: str
    gold: str
    prompt: Excerpt
    response: Excerpt | None
    sides: tuple[Side, Side]


@dataclass(frozen=True, slots=True)
class FlippedRecords:
    """Records that flipped in one direction.

    Args:
        first: the run that has them wrong, if they were gained.
        second: the other.
        gained: whether it is the second that has them right.
        total: how many there are.
        shown: some of them, in the order of the records.
    """

    first: str
    second: str
    gained: bool
    total: int
    shown: tuple[FlippedRecord, ...]


def excerpt(text: str, room: tuple[int, int]) -> Excerpt:
    """Return a text, shortened where it is longer than there is room for.

    Args:
        text: of any length.
        room: characters of its beginning and of its end.
    """
    head, tail = room
    if len(text) <= head + tail:
        return Excerpt(text)
    return Excerpt(text[:head], len(text) - head - tail, text[len(text) - tail :])


def flipped(
    comparison: Comparison, first: str, second: str, count: int, seed: int
) -> tuple[FlippedRecords, FlippedRecords]:
    """Return examples of what the second run gained, then of what it lost.

    A record in which one task was gained and another lost is among both.

    Args:
        comparison: of the runs.
        first: a run.
        second: another.
        count: most examples a direction.
        seed: of the choice among them.
    """
    found: dict[bool, dict[str, list[Flip]]] = {True: defaultdict(list), False: defaultdict(list)}
    for flip in comparison.flips(first, second):
        found[flip.gained][flip.record_id].append(flip)
    gained, lost = (_examples(comparison, (first, second), way, found[way], count, seed) for way in (True, False))
    return gained, lost


def _examples(
    comparison: Comparison,
    runs: tuple[str, str],
    gained: bool,
    found: Mapping[str, Sequence[Flip]],
    count: int,
    seed: int,
) -> FlippedRecords:
    chosen = set(random.Random(f"{seed} {runs} {gained}").sample(list(found), min(count, len(found))))
    files = {run: comparison.files_of(run) for run in runs}
    records = {record.id: record for record in files[runs[0]][0].records if record.id in chosen}
    written = {
        (run, place): {one.record_id: one.completion for one in file.rollouts if one.record_id in chosen}
        for run in runs
        for place, file in enumerate(files[run])
    }
    shown = []
    for identity in found:
        if identity not in chosen:
            continue
        flips, record = found[identity], records[identity]
        sides = []
        for run, right in zip(runs, (not gained, gained), strict=True):
            place = _speaker(flips[0], run, right)
            several = len(files[run]) > 1
            said = files[run][place].name if several else ""
            output = excerpt(written[run, place][identity], _OUTPUT)
            sides.append(Side(run, _verdicts(flips, run), right, said, output))
        response = None if record.response is None else excerpt(record.response, _PROMPT)
        gold = ", ".join(f"{flip.task}: {flip.gold}" for flip in flips)
        name = excerpt(identity, _NAME)
        prompt = excerpt(record.prompt, _PROMPT)
        shown.append(FlippedRecord(name, record.source, gold, prompt, response, (sides[0], sides[1])))
    return FlippedRecords(*runs, gained, len(found), tuple(shown))


def _speaker(flip: Flip, run: str, right: bool) -> int:
    """Return the first of a run's seeds that says what most of them do."""
    return next(place for place, said in enumerate(flip.verdicts[run]) if (said == flip.gold) is right)


def _verdicts(flips: Sequence[Flip], run: str) -> str:
    return ", ".join(
        f"{flip.task}: " + " / ".join(said or "no verdict" for said in flip.verdicts[run]) for flip in flips
    )
