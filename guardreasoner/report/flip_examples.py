"""Examples of flipped records (correct in one run and wrong in the other), with the outputs of both runs."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.evaluation.comparison import Comparison
from guardreasoner.evaluation.comparison.flips import Flip
from guardreasoner.workflow.shown_parts import shown_parts

# Characters kept from the beginning and the end of a long text.
_ID_SIZE = (60, 20)
_PROMPT_SIZE = (900, 300)
_OUTPUT_SIZE = (3000, 1000)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A text, or the beginning and end of a long one.

    Args:
        head: The whole text, or its beginning.
        left_out: Number of characters left out after ``head``.
        tail: The end of the text, if characters were left out.
    """

    head: str
    left_out: int = 0
    tail: str = ""


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """What one run answered to a flipped record.

    Args:
        run: Name of the run.
        verdicts: The run's verdicts on the tasks that flipped.
        right: Whether these verdicts are right.
        seed: Name of the training seed that wrote the output; empty if the run has one seed.
        output: The output.
    """

    run: str
    verdicts: str
    right: bool
    seed: str
    output: Excerpt


@dataclass(frozen=True, slots=True)
class FlippedRecord:
    """A flipped record with the answers of both runs.

    Args:
        record_id: Id of the record.
        benchmark: Benchmark of the record.
        gold: Gold labels of the tasks that flipped.
        parts: Name and text of the policy, if there is one, and of each part of the conversation.
        answers: Answers of the first and the second run.
    """

    record_id: Excerpt
    benchmark: str
    gold: str
    parts: tuple[tuple[str, Excerpt], ...]
    answers: tuple[RunAnswer, RunAnswer]


@dataclass(frozen=True, slots=True)
class FlipExamples:
    """Examples of records that flipped in one direction.

    Args:
        first: Name of the first run.
        second: Name of the second run.
        gained: True if the second run is right on these records, False if the first is.
        total: Number of records that flipped in this direction.
        shown: A sample of them, in the order of the records.
    """

    first: str
    second: str
    gained: bool
    total: int
    shown: tuple[FlippedRecord, ...]


def excerpt(text: str, size: tuple[int, int]) -> Excerpt:
    """Return the text, shortened in the middle if it is too long.

    Args:
        text: A text of any length.
        size: Number of characters to keep from the beginning and from the end.
    """
    head, tail = size
    if len(text) <= head + tail:
        return Excerpt(text)
    return Excerpt(text[:head], len(text) - head - tail, text[len(text) - tail :])


def flip_examples(
    comparison: Comparison, first: str, second: str, count: int, seed: int
) -> tuple[FlipExamples, FlipExamples]:
    """Return examples of the records that the second run gained, and of those that it lost.

    A record on which one task was gained and another lost is in both.

    Args:
        comparison: Comparison of the runs.
        first: Name of the first run.
        second: Name of the second run.
        count: Largest number of examples per direction.
        seed: Seed of the sample.
    """
    flips: dict[bool, dict[str, list[Flip]]] = {True: defaultdict(list), False: defaultdict(list)}
    for flip in comparison.flips(first, second):
        flips[flip.gained][flip.record_id].append(flip)
    runs = first, second
    gained, lost = (_sample(comparison, runs, is_gain, flips[is_gain], count, seed) for is_gain in (True, False))
    return gained, lost


def _sample(
    comparison: Comparison,
    runs: tuple[str, str],
    gained: bool,
    flips_by_record: Mapping[str, Sequence[Flip]],
    count: int,
    seed: int,
) -> FlipExamples:
    size = min(count, len(flips_by_record))
    chosen = set(random.Random(f"{seed} {runs} {gained}").sample(list(flips_by_record), size))
    files = {run: comparison.files_of(run) for run in runs}
    records = {record.id: record for record in files[runs[0]][0].records if record.id in chosen}
    outputs = {
        (run, index): {
            rollout.record_id: rollout.completion for rollout in file.rollouts if rollout.record_id in chosen
        }
        for run in runs
        for index, file in enumerate(files[run])
    }
    shown = []
    for record_id in flips_by_record:
        if record_id not in chosen:
            continue
        flips, record = flips_by_record[record_id], records[record_id]
        answers = []
        for run, right in zip(runs, (not gained, gained), strict=True):
            index = _majority_seed(flips[0], run, right)
            seed_name = files[run][index].name if len(files[run]) > 1 else ""
            output = excerpt(outputs[run, index][record_id], _OUTPUT_SIZE)
            answers.append(RunAnswer(run, _verdicts(flips, run), right, seed_name, output))
        gold = ", ".join(f"{flip.task}: {flip.gold}" for flip in flips)
        short_id = excerpt(record_id, _ID_SIZE)
        parts = tuple((name.capitalize(), excerpt(text, _PROMPT_SIZE)) for name, text in shown_parts(record))
        shown.append(FlippedRecord(short_id, record.source, gold, parts, (answers[0], answers[1])))
    return FlipExamples(*runs, gained, len(flips_by_record), tuple(shown))


def _majority_seed(flip: Flip, run: str, right: bool) -> int:
    """Return the index of the first training seed whose verdict is as right or wrong as that of the majority."""
    return next(index for index, verdict in enumerate(flip.verdicts[run]) if (verdict == flip.gold) is right)


def _verdicts(flips: Sequence[Flip], run: str) -> str:
    return ", ".join(
        f"{flip.task}: " + " / ".join(verdict or "no verdict" for verdict in flip.verdicts[run]) for flip in flips
    )
