"""What a teacher has been asked about each record, and what is still to be asked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Request
from guardreasoner.generators.server import ServerGenerator
from guardreasoner.prompts import conversation
from guardreasoner.records import Record
from guardreasoner.synthesis.answer_log import AnswerLog
from guardreasoner.synthesis.prompt import PromptRenderer, faults, heading_pattern
from guardreasoner.synthesis.trace import Trace, trace_of
from guardreasoner.tasks import Task
from guardreasoner.workflow.manifest import fingerprint


@dataclass(slots=True)
class PendingRecord:
    """A record for which a trace is sought.

    Args:
        record: the record.
        text: the teacher's prompt; emptied when the record is settled, to save memory.
        key: hash of everything that determines the answers.
        attempts: number of answers so far.
        faults: faults of the latest answer.
        accepted: offset in the answer log of the accepted answer; None if there is none.
    """

    record: Record
    text: str
    key: str
    attempts: int = 0
    faults: list[str] = field(default_factory=list)
    accepted: int | None = None


class TeacherRequests:
    """Makes requests for records and checks and logs the answers.

    Args:
        generator: the server.
        prompt: renders the teacher's prompt for a record.
        answer_log: log of all answers.
        tasks: tasks of the guard.
        ask_all: whether records that have reasoning are asked about too.
        ask_again: how often a record is asked again after its trace was refused.
        steps: pattern of a step heading; None skips the check of steps.
        seed: seed of the first answer to each record; each further answer has the next seed.
    """

    def __init__(
        self,
        generator: ServerGenerator,
        prompt: PromptRenderer,
        answer_log: AnswerLog,
        tasks: Sequence[Task],
        ask_all: bool,
        ask_again: int,
        steps: str | None,
        seed: int,
    ) -> None:
        self.generator = generator
        self.prompt = prompt
        self.answer_log = answer_log
        self.tasks = tasks
        self.ask_all = ask_all
        self.ask_again = ask_again
        self.steps = steps
        self.heading = heading_pattern(steps)
        self.seed = seed
        self.lacking_count = self.own_count = 0

    def lacking(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records that lack reasoning, and count the others; with ``ask_all``, yield all."""
        for record in records:
            if record.reasoning and not self.ask_all:
                self.own_count += 1
            else:
                self.lacking_count += 1
                yield record

    def require_any(self) -> None:
        """Raise ``InputError`` if every record had reasoning."""
        if self.own_count and not self.lacking_count:
            raise InputError(
                f"data.source: all {self.own_count:,} records have reasoning, so none is asked about",
                "model.ask_all: true asks for new reasoning",
            )

    def own_lines(self) -> list[str]:
        """Return a line with the number of records that are not asked about, if there are any."""
        if not self.own_count:
            return []
        return [f"{self.own_count:,} records have reasoning and are not asked about (model.ask_all: true asks)"]

    def pending(self, record: Record) -> PendingRecord:
        """Return the state of a record, from its logged answers and the current checks."""
        text = self.prompt(record)
        key = fingerprint({"text": text, "seed": self.seed, **self.generator.settings})
        pending = PendingRecord(record, text, key)
        for offset, row in self.answer_log.rows(record.id, key):
            pending.attempts = max(pending.attempts, row["attempt"] + 1)
            pending.faults = self._faults(row, record)
            if not pending.faults:
                pending.accepted = offset
                break
        return pending

    def is_settled(self, pending: PendingRecord) -> bool:
        """Return whether a record has an accepted answer or no attempts left."""
        return pending.accepted is not None or pending.attempts > self.ask_again

    def request(self, pending: PendingRecord) -> Request:
        """Return the next request for a record."""
        return Request(pending.record.id, (), pending.text, (self.seed + pending.attempts,))

    def add_answer(self, pending: PendingRecord, answer: Completion) -> None:
        """Log an answer, check it, and update the state of its record."""
        # a lone surrogate is valid in JSON but cannot be written to a UTF-8 file
        text = answer.text.encode("utf-8", "replace").decode()
        row = {
            "key": pending.key,
            "record_id": pending.record.id,
            "attempt": pending.attempts,
            "text": text,
            "finish_reason": answer.finish_reason,
            "problem": answer.problem,
            "characters": len(pending.text),
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
        }
        pending.faults = self._faults(row, pending.record)
        offset = self.answer_log.append({**row, "faults": pending.faults})
        pending.attempts += 1
        if not pending.faults:
            pending.accepted = offset

    def trace(self, row: Mapping[str, Any], record: Record) -> Trace:
        """Return the trace in a logged answer to a record."""
        return trace_of(row["text"], conversation(record), self.heading)

    def _faults(self, row: Mapping[str, Any], record: Record) -> list[str]:
        if problem := row.get("problem"):  # rows of earlier versions have no such field
            return [problem]
        trace = self.trace(row, record)
        if trace.faults:
            return list(trace.faults)
        return faults(trace.text, record, self.tasks, self.steps, row["finish_reason"])
