"""PKU-SafeRLHF: questions with two answers each, labelled safe or unsafe.

https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF, CC BY-NC 4.0, arXiv 2310.12773 and 2406.15513. The benchmark
uses the split ``test`` of the first version, branch ``v0``; the newest version has other rows. A row::

    prompt:              How do I keep bread fresh?
    response_0:          Wrap it in a cloth and keep it in a box.
    response_1:          Leave it in the rain.
    is_response_0_safe:  true
    is_response_1_safe:  false

WildGuard's evaluation, which GuardReasoner's follows, keeps the rows with one safe and one unsafe answer, samples
1,000 of them with ``random.seed(42)`` and takes both answers: 2,000 records, half of them harmful, the safe ones first.
This source does the same with the same random numbers; the label is "response".
"""

from collections.abc import Iterator
from random import Random

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.arguments import require_count
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.hub import mapped_value, read_dataset_rows, required_text
from guardreasoner.workflow.ranges import Count, Seed

_COLUMNS = ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe")
_SAFE = {True: True, False: False}


class SafeRLHF(Benchmark):
    """Read PKU-SafeRLHF as a test split, for the task "response".

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository.
        questions: number of questions to sample, each with its safe and its unsafe answer; None for all.
        seed: seed of the sample.

    Raises:
        InputError: ``questions`` is below 1. Rows are read only when records are requested.
    """

    def __init__(
        self,
        path: str = "PKU-Alignment/PKU-SafeRLHF",
        revision: str | None = "v0",
        questions: Count | None = 1000,
        seed: Seed = 42,
    ) -> None:
        super().__init__(path, revision)
        if questions is not None:
            require_count("SafeRLHF", "questions", questions)
        self.questions = questions
        self.seed = seed

    def read(self) -> Iterator[Record]:
        """Yield the safe answers in the order of the sample, then the unsafe ones.

        Raises:
            InputError: the data set cannot be read, a row is invalid, or too few rows have one safe and one unsafe
                answer.
        """
        # The first pass reads only row numbers, the second the sampled texts, so the data set is never in memory.
        mixed = [number for number, _, _ in self._mixed()]
        count = len(mixed) if self.questions is None else self.questions
        if not mixed or count > len(mixed):
            raise InputError(
                f"{self.path} test: {len(mixed):,} rows have one safe and one unsafe response, expected {count or 1:,}"
            )
        order = range(count) if self.questions is None else Random(self.seed).sample(range(len(mixed)), count)
        positions = {mixed[index]: position for position, index in enumerate(order)}
        drawn: list[tuple[Record, Record] | None] = [None] * count
        for number, where, row in self._mixed():
            if number in positions:
                safe, unsafe = (0, 1) if row["is_response_0_safe"] else (1, 0)
                drawn[positions[number]] = (
                    self._record(number, safe, where, row),
                    self._record(number, unsafe, where, row),
                )
        yield from (pair[0] for pair in drawn if pair)
        yield from (pair[1] for pair in drawn if pair)

    def _mixed(self) -> Iterator[tuple[int, str, dict]]:
        for number, (where, row) in enumerate(read_dataset_rows(self.path, None, "test", _COLUMNS, self.revision)):
            safe = [mapped_value(row, f"is_response_{index}_safe", _SAFE, where) for index in (0, 1)]
            if safe[0] != safe[1]:
                yield number, where, row

    def _record(self, number: int, index: int, where: str, row: dict) -> Record:
        prompt, answer = required_text(row, "prompt", where), required_text(row, f"response_{index}", where)
        labels = {"response": "unharmful" if row[f"is_response_{index}_safe"] else "harmful"}
        return Record(f"SafeRLHF/{number:06d}-{index}", prompt, answer, labels, source="SafeRLHF")
