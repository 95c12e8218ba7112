"""Records and answers of runs, written as letters: H harmful, U unharmful, any other letter for no verdict."""

from guardreasoner.evaluation.comparison.alignment import Answers
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import GUARD_TASKS

TASKS = GUARD_TASKS[:1]
LABEL_BY_LETTER = {"H": "harmful", "U": "unharmful"}


def records(gold: str, split: int | None = None) -> list[Record]:
    """Return a record for each gold label; the first ``split`` are of benchmark "one", the others of "two"."""
    first_of_two = len(gold) if split is None else split
    return [
        Record(
            f"{number:03d}",
            f"p{number}",
            None,
            {"request": LABEL_BY_LETTER[letter]},
            source="one" if number < first_of_two else "two",
        )
        for number, letter in enumerate(gold)
    ]


def answers(name: str, answered: list[Record], verdicts: str, hard: dict[str, str] | None = None) -> Answers:
    """Return answers with these verdicts; ``hard`` has the verdicts of the sampled outputs by record id."""

    def output(record_id: str, letter: str, index: int = 0) -> Rollout:
        known = letter in LABEL_BY_LETTER
        text = answer_block({"request": LABEL_BY_LETTER[letter]}, TASKS) if known else "…"
        return Rollout(record_id, name, "f", index, 0, text)

    outputs = [output(record.id, letter) for record, letter in zip(answered, verdicts, strict=True)]
    samples = [output(key, letter, i) for key, letters in (hard or {}).items() for i, letter in enumerate(letters)]
    return Answers(name, answered, outputs, [record for record in answered if record.id in (hard or {})], samples)
