"""PKU-SafeRLHF: two answers to each question, each judged safe or not.

https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF, CC BY-NC 4.0, arXiv 2310.12773 and 2406.15513. The benchmark
is made of the split ``test`` of its first version, the branch ``v0``; the newest version has other rows. A row::

    prompt:              How do I keep bread fresh?
    response_0:          Wrap it in a cloth and keep it in a box.
    response_1:          Leave it in the rain.
    is_response_0_safe:  true
    is_response_1_safe:  false

WildGuard's evaluation, which GuardReasoner's follows, keeps the rows with one safe and one unsafe answer, draws 1,000
of them with ``random.seed(42)`` and takes both answers of each: 2,000 records, half of them harmful, safe ones first.
The same is done here, with the same numbers; the label is that of the task "response".
"""

from collections.abc import Iterator
from random import Random

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import mapped_value, read_dataset_rows, required_text, source_identity

_COLUMNS = ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe")
_SAFE = {True: True, False: False}


class SafeRLHF:
    """Read PKU-SafeRLHF as a test split, for the task "response".

    Args:
        path: repository of the hub, or a folder with its files.
        revision: of the repository.
        questions: how many questions to draw, each with its safe and its unsafe answer; None for all.
        seed: of the draw.

    Raises:
        InputError: fewer than one question. Rows are read when records are asked for.
    """

    def __init__(
        self,
        path: str = "PKU-Alignment/PKU-SafeRLHF",
        revision: str | None = "v0",
        questions: int | None = 1000,
        seed: int = 42,
    ) -> None:
        self.path = path
        self.revision = revision
        self.questions = questions
        self.seed = seed
        if questions is not None and questions < 1:
            raise InputError(f"SafeRLHF: questions must be 1 or more, got {questions}")

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of the test split: the safe answers in the order of the draw, then the others.

        Raises:
            InputError: the set cannot be read, a row is not as it must be, or fewer rows than ``questions`` have one
                safe and one unsafe answer.
        """
        if split != "test":
            return
        # Row numbers first, texts of the drawn rows afterwards: the whole set is never in memory.
        mixed = [number for number, _, _ in self._mixed()]
        count = len(mixed) if self.questions is None else self.questions
        if not mixed or count > len(mixed):
            raise InputError(
                f"{self.path} test: {len(mixed):,} rows have one safe and one unsafe response, expected {count or 1:,}"
            )
        order = range(count) if self.questions is None else Random(self.seed).sample(range(len(mixed)), count)
        places = {mixed[index]: place for place, index in enumerate(order)}
        drawn: list[tuple[Record, Record] | None] = [None] * count
        for number, where, row in self._mixed():
            if number in places:
                safe, unsafe = (0, 1) if row["is_response_0_safe"] else (1, 0)
                drawn[places[number]] = self._record(number, safe, where, row), self._record(number, unsafe, where, row)
        yield from (pair[0] for pair in drawn if pair)
        yield from (pair[1] for pair in drawn if pair)

    def identity(self) -> object:
        """Return the arguments and what a local folder holds."""
        return source_identity(self, self.path)

    def _mixed(self) -> Iterator[tuple[int, str, dict]]:
        for number, (where, row) in enumerate(read_dataset_rows(self.path, None, "test", _COLUMNS, self.revision)):
            safe = [mapped_value(row, f"is_response_{one}_safe", _SAFE, where) for one in (0, 1)]
            if safe[0] != safe[1]:
                yield number, where, row

    def _record(self, number: int, one: int, where: str, row: dict) -> Record:
        prompt, answer = required_text(row, "prompt", where), required_text(row, f"response_{one}", where)
        labels = {"response": "unharmful" if row[f"is_response_{one}_safe"] else "harmful"}
        return Record(f"SafeRLHF/{number:06d}-{one}", prompt, answer, labels, source="SafeRLHF")
