"""Compare the verdicts of a guard before and after an export."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.guard.chat_export import chat_request
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.prompt_tokenizer import first_difference
from guardreasoner.records import Record, Speed
from guardreasoner.tasks import Task

_PROGRAM = Path(__file__).with_name("plain_chat.py")


@dataclass(frozen=True)
class VerdictDifference:
    """A verdict that an export changed.

    Args:
        record_id: id of the record.
        speed: speed of the answers.
        task: name of the task.
        before: verdict of the model; None if it has none.
        after: verdict of the exported model.
    """

    record_id: str
    speed: Speed
    task: str
    before: str | None
    after: str | None

    def line(self) -> str:
        """Return the difference in one line."""
        return (
            f"{self.record_id} ({self.speed}) {self.task}: {self.before or 'unparsed'}, now {self.after or 'unparsed'}"
        )


@dataclass(frozen=True)
class Verification:
    """The outcome of a comparison.

    Args:
        records: number of records.
        speeds: speeds at which each record was asked about.
        dtypes: data types of the weights before and after.
        changed: number of answers with another verdict.
        equal_texts: number of answers with the same text.
        unparsed: number of answers before the export with a task without a verdict.
        differences: the verdicts that differ.
    """

    records: int
    speeds: tuple[Speed, ...]
    dtypes: tuple[str, str]
    changed: int
    equal_texts: int
    unparsed: int
    differences: tuple[VerdictDifference, ...]

    @property
    def answers(self) -> int:
        """Number of answers that were compared."""
        return self.records * len(self.speeds)

    @property
    def failed(self) -> bool:
        """Whether verdicts differ although no precision was given up."""
        return self.changed > 0 and self.dtypes[1] == "float32"

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as the manifest of an export stores them."""
        return {
            "records": self.records,
            "answers": self.answers,
            "speeds": list(self.speeds),
            "dtypes": list(self.dtypes),
            "changed": self.changed,
            "equal_texts": self.equal_texts,
            "unparsed": self.unparsed,
        }

    def line(self) -> str:
        """Return the outcome in one sentence."""
        before, after = self.dtypes
        return (
            f"verdicts equal on {self.answers - self.changed:,} of {self.answers:,} answers "
            f"({self.records:,} records, {' and '.join(self.speeds)}; {before} before, {after} after); "
            f"texts equal on {self.equal_texts:,}; {self.unparsed:,} had no verdict for a task before"
        )


AnswerFunction = Callable[[Sequence[Record], Speed], list[str]]
"""Returns the greedy answer to each record."""


def compare_verdicts(
    before: Backbone, after: AnswerFunction, records: Sequence[Record], after_dtype: str, max_new_tokens: int
) -> Verification:
    """Ask both models about records, at every speed that the model was trained for, and compare the verdicts.

    Args:
        before: the model.
        after: answers of the exported model.
        records: the records, with distinct ids.
        after_dtype: data type of the exported weights.
        max_new_tokens: largest number of tokens of an answer.
    """
    format = before.prompt_tokenizer.format
    speeds: tuple[Speed, ...] = tuple(format.speeds) or (format.speed(),)
    differences: list[VerdictDifference] = []
    equal_texts = unparsed = changed = 0
    for speed in speeds:
        old_texts = local_answers(before, max_new_tokens)(records, speed)
        for record, old, new in zip(records, old_texts, after(records, speed), strict=True):
            old_verdicts, new_verdicts = format.parse(old), format.parse(new)
            found = [
                VerdictDifference(record.id, speed, task, verdict, new_verdicts[task])
                for task, verdict in old_verdicts.items()
                if verdict != new_verdicts[task]
            ]
            differences += found
            changed += bool(found)
            equal_texts += old == new
            unparsed += None in old_verdicts.values()
    return Verification(
        len(records), speeds, (before.dtype, after_dtype), changed, equal_texts, unparsed, tuple(differences)
    )


def local_answers(backbone: Backbone, max_new_tokens: int) -> AnswerFunction:
    """Return the answers of a model through the local engine."""

    def answers(records: Sequence[Record], speed: Speed) -> list[str]:
        import torch

        from guardreasoner.generators import Request
        from guardreasoner.generators.local import LocalGenerator

        tokenizer = backbone.prompt_tokenizer
        requests = [
            Request(str(place), tuple(tokenizer.prompt(record, speed)), tokenizer.text(record, speed), (0,))
            for place, record in enumerate(records)
        ]
        backbone.load()
        if torch.cuda.is_available():
            backbone.to("cuda")
        engine = LocalGenerator(backbone, max_new_tokens, temperature=0.0)
        texts = {answer.record_id: answer.text for group in engine.generate_groups(requests) for answer in group}
        return [texts[request.record_id] for request in requests]

    return answers


def plain_answers(source: Backbone, folder: Path, dtype: str, max_new_tokens: int) -> AnswerFunction:
    """Return the answers of an exported folder through ``transformers`` alone, in a process without this package.

    The ids of its prompts must be those of the model.

    Args:
        source: the model that was exported.
        folder: the exported folder.
        dtype: data type to load it in.
        max_new_tokens: largest number of tokens of an answer.
    """

    def answers(records: Sequence[Record], speed: Speed) -> list[str]:
        chats = "".join(json.dumps(chat_request(record, speed)) + "\n" for record in records)
        command = [sys.executable, "-I", str(_PROGRAM), str(folder.absolute()), dtype, str(max_new_tokens)]
        done = subprocess.run(command, input=chats, capture_output=True, text=True, encoding="utf-8")
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or len(rows) != len(records):
            reason = next(reversed(done.stderr.split("\n")[:-1]), f"exit code {done.returncode}")
            raise InputError(f"{folder.name}: transformers alone cannot answer with the exported folder: {reason}")
        tokenizer = source.prompt_tokenizer
        for record, row in zip(records, rows, strict=True):
            if row["ids"] != (expected := tokenizer.prompt(record, speed)):
                difference = first_difference(tokenizer.tokenizer, row["ids"], expected)
                raise InputError(f"record {record.id}: the exported chat template renders {difference}")
        return [row["text"] for row in rows]

    return answers


def require_policies(records: Sequence[Record], tasks: Sequence[Task]) -> None:
    """Require that records have the policy that a task judges by.

    Raises:
        InputError: one has none.
    """
    if any(task.uses_policy for task in tasks):
        for record in records:
            if record.policy is None:
                raise InputError(
                    f"--verify: record {record.id} has no policy, which the model judges by",
                    "leave --records out to use embedded records with policies",
                )
