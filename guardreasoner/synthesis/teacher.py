"""Teacher synthesis: a strong model behind a server writes the reasoning that leads to known labels."""

import logging
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Request
from guardreasoner.generators.progress import RecordProgress, total_of
from guardreasoner.generators.retries import Failure
from guardreasoner.generators.server import Answer, ServerGenerator
from guardreasoner.records import Record, Rollout, write_jsonl
from guardreasoner.synthesis.answer_log import AnswerLog
from guardreasoner.synthesis.prompt import STEPS, check_steps, faults, prompt_from
from guardreasoner.tasks import GUARD_TASKS, Task, write_tasks
from guardreasoner.workflow.manifest import fingerprint

ANSWER_LOG = "answers.jsonl"

log = logging.getLogger("guardreasoner")


@dataclass(slots=True)
class PendingRecord:
    """A record on its way to a trace.

    Args:
        record: what is asked about.
        text: the prompt.
        key: of all that decides the answers.
        tried: answers that are there.
        faults: of the last.
        kept: place in the ledger of the answer that is kept.
    """

    record: Record
    text: str
    key: str
    tried: int = 0
    faults: list[str] = field(default_factory=list)
    kept: int | None = None


@dataclass(frozen=True)
class Prices:
    """Prices in any currency; 0 where nothing is paid.

    Args:
        input: of a million prompt tokens.
        output: of a million generated tokens.

    Raises:
        InputError: a price below 0.
    """

    input: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        if self.input < 0 or self.output < 0:
            raise InputError(f"model.prices: must be 0 or above, got {self.input} and {self.output}")

    @property
    def known(self) -> bool:
        """Whether there is a price."""
        return bool(self.input or self.output)

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what tokens cost."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


class TeacherModule(LightningModule):
    """Asks a server for the reasoning of labelled records and keeps what may be learned from.

    ``predict`` asks, checks, asks again what it refuses, and leaves a folder of rollouts: ``records.jsonl`` and
    ``rollouts.jsonl`` hold what was kept, ``refused.jsonl`` the others with the reason, ``answers.jsonl`` every answer
    that was paid for, as it came. A run that is started again asks only for what is not there.

    Args:
        generator: the server.
        template: the teacher's prompt, see :func:`guardreasoner.synthesis.prompt.prompt_from`.
        folder: where to.
        tasks: what is decided; None: the three of GuardReasoner.
        ask_again: how often a record is asked again when its trace is refused.
        steps: pattern of a step's heading with its number as the one group; None: steps are not looked at.
        seed: of the first answer of each record; the next ones have the next seeds.
        prices: of a million tokens.
        characters_per_token: for the estimate, as long as no server has counted.
        expected_tokens: tokens of an answer, likewise.

    Raises:
        InputError: no folder, a number out of range, or a template or pattern that cannot be read.
    """

    writes_output = True  # the command line shall add no writer and no bar of chunks

    def __init__(
        self,
        generator: ServerGenerator,
        template: str,
        folder: str | None,
        tasks: Sequence[Task] | None = None,
        ask_again: int = 2,
        steps: str | None = STEPS,
        seed: int = 0,
        prices: Prices | None = None,
        characters_per_token: float = 4.0,
        expected_tokens: int = 600,
    ) -> None:
        super().__init__()
        if not folder:
            raise InputError("output: none given; answers that are paid for must be written somewhere")
        if ask_again < 0 or characters_per_token <= 0 or expected_tokens < 1:
            raise InputError("model: ask_again must be 0 or above, characters_per_token and expected_tokens above 0")
        if steps is not None:
            check_steps(steps)
        self.generator = generator
        self.tasks = tuple(tasks or GUARD_TASKS)
        self.prompt = prompt_from(template, self.tasks)
        self.folder = Path(folder)
        self.ask_again = ask_again
        self.steps = steps
        self.seed = seed
        self.prices = prices or Prices()
        self.characters_per_token = characters_per_token
        self.expected_tokens = expected_tokens
        self.answer_log = AnswerLog(self.folder / ANSWER_LOG)
        self._fingerprint = fingerprint({"template": template, **generator.settings})
        self._waiting: deque[PendingRecord] = deque()
        self._cases: dict[str, PendingRecord] = {}  # in the order of the records, however the answers come
        self._failed: dict[str, str] = {}
        self._count = Counter[str]()

    def estimator(self) -> LightningModule:
        """Return what goes over the records in this module's place and says what a run would cost."""
        return CostEstimator(self)

    def case(self, record: Record) -> PendingRecord:
        """Return how far a record is, by the answers that are in the ledger and today's checks."""
        text = self.prompt(record)
        case = PendingRecord(record, text, fingerprint({"text": text, "seed": self.seed, **self.generator.settings}))
        for place, row in self.answer_log.rows(record.id, case.key):
            case.tried = max(case.tried, row["attempt"] + 1)
            case.faults = faults(row["text"], record, self.tasks, self.steps, row["finish_reason"])
            if not case.faults:
                case.kept = place
                break
        return case

    def is_over(self, case: PendingRecord) -> bool:
        """Return whether a record is not to be asked (again)."""
        return case.kept is not None or case.tried > self.ask_again

    def transfer_batch_to_device(self, batch: list[Record], device: torch.device, dataloader_idx: int) -> list[Record]:
        """Leave records where they are."""
        return batch

    def on_predict_start(self) -> None:
        """Open the ledger."""
        if self.trainer.world_size > 1:
            raise InputError("a server is asked by one process", "set trainer.devices: 1")
        if getattr(self.trainer, "fast_dev_run", False):
            raise InputError(
                "trainer.fast_dev_run: a teacher has nothing cheaper than an answer",
                "--dry_run estimates; --trainer.limit_predict_batches 1 --data.chunk_size 8 asks for eight records",
            )
        if torn := self.answer_log.open():
            log.warning(
                "%s: cut off a torn last line of %d bytes; its record is asked again", self.answer_log.path, torn
            )
        self._progress = RecordProgress("synthesis", total_of(self.trainer))
        self._answers: Iterator[Answer] = self.generator.ask(self._draw)

    def predict_step(self, records: list[Record], index: int) -> list[Any]:
        """Take in a chunk of records and deal with answers until all of the chunk is answered or in flight."""
        try:
            for record in records:
                self._take(record)
            while self._waiting:
                self._settle(next(self._answers))
        except BaseException:
            self._stop()
            raise
        return []

    def on_predict_epoch_end(self) -> None:
        """Deal with the answers that are still in flight, and with what they lead to."""
        try:
            for answer in self._answers:
                self._settle(answer)
        finally:
            self._stop()

    def on_predict_end(self) -> None:
        """Write what was kept and refused, and say how much it was.

        Raises:
            InputError: nothing was kept.
        """
        kept = [case for case in self._cases.values() if case.kept is not None]
        write_jsonl(self.folder / "refused.jsonl", self._refused())
        self._say()
        if not kept:
            worst = Counter(row["faults"][0] for row in self._refused()).most_common(1)
            raise InputError(
                f"{self.folder}: no trace was kept of {len(self._cases):,} records; "
                f"most often: {worst[0][0] if worst else 'no record'}",
                f"{self.folder / 'refused.jsonl'} and {ANSWER_LOG} beside it show why",
            )
        write_jsonl(self.folder / "records.jsonl", (case.record for case in kept))
        write_jsonl(self.folder / "rollouts.jsonl", map(self._rollout, kept))
        write_tasks(self.folder, self.tasks)

    def _take(self, record: Record) -> None:
        if record.id in self._cases:
            raise InputError(f"record id {record.id!r} occurs twice; ids must be unique")
        case = self._cases[record.id] = self.case(record)
        if self.is_over(case):
            self._count["before"] += 1
            self._end(case)
        else:
            self._waiting.append(case)

    def _draw(self) -> Request | None:
        if not self._waiting:
            return None
        case = self._waiting.popleft()
        return Request(case.record.id, (), case.text, (self.seed + case.tried,))

    def _settle(self, answer: Answer) -> None:
        case = self._cases[answer.record_id]
        if isinstance(answer, Failure):
            self._failed[answer.record_id] = answer.reason
            self._end(case)
        else:
            self._receive(answer, case)
        count = self._count
        done = count["kept"] + count["refused"] + count["failed"]
        said = f"kept {count['kept']:,}, refused {count['refused']:,}, failed {count['failed']:,}"
        self._progress.show(done, done - count["before"], said)
        if self.trainer.received_sigterm:
            raise SystemExit(128 + signal.SIGTERM)  # the trainer would not look before the last chunk

    def _receive(self, answer: Completion, case: PendingRecord) -> None:
        # half a surrogate pair is legal in JSON, and in no file
        text = answer.text.encode("utf-8", "replace").decode()
        case.faults = faults(text, case.record, self.tasks, self.steps, answer.finish_reason)
        place = self.answer_log.append(
            {
                "key": case.key,
                "record_id": case.record.id,
                "attempt": case.tried,
                "text": text,
                "finish_reason": answer.finish_reason,
                "faults": case.faults,
                "characters": len(case.text),
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
            }
        )
        self._count["answers"] += 1
        self._count["prompt_tokens"] += answer.prompt_tokens or 0
        self._count["completion_tokens"] += answer.completion_tokens or 0
        case.tried += 1
        if not case.faults:
            case.kept = place
        if self.is_over(case):
            self._end(case)
        else:
            self._waiting.appendleft(case)

    def _end(self, case: PendingRecord) -> None:
        case.text = ""  # the longest part, and not needed any more
        how = "failed" if case.record.id in self._failed else "refused" if case.kept is None else "kept"
        self._count[how] += 1

    def _stop(self) -> None:
        close = getattr(self._answers, "close", None)
        if close is not None:
            close()
        self._progress.close()
        self.answer_log.close()

    def _refused(self) -> Iterator[dict[str, Any]]:
        for name, case in self._cases.items():
            if name in self._failed:
                yield {"record_id": name, "attempts": case.tried, "faults": [f"request failed: {self._failed[name]}"]}
            elif case.kept is None:
                yield {"record_id": name, "attempts": case.tried, "faults": case.faults}

    def _rollout(self, case: PendingRecord) -> Rollout:
        assert case.kept is not None
        row = self.answer_log.at(case.kept)
        seed = self.seed + row["attempt"]
        return Rollout(case.record.id, self.generator.model, self._fingerprint, 0, seed, row["text"])

    def _say(self) -> None:
        count = self._count
        asked = f"{len(self._cases):,} records, {count['before']:,} of them answered before"
        log.info("%s: %s; %s answers in this run", self.folder, asked, f"{count['answers']:,}")
        log.info("%s", ", ".join(f"{how} {count[how]:,}" for how in ("kept", "refused", "failed")))
        reasons = Counter(fault.partition(":")[0] for row in self._refused() for fault in row["faults"])
        for why, times in reasons.most_common():
            log.info("  %s: %s", why, f"{times:,}")
        if self._failed:
            log.info("the same command asks again for what failed; the reasons are in refused.jsonl")
        if count["answers"]:
            spent = self.prices.of(count["prompt_tokens"], count["completion_tokens"])
            cost = f"; cost {spent:,.2f}" if self.prices.known else ""
            tokens = f"{count['prompt_tokens']:,} in, {count['completion_tokens']:,} out"
            log.info("tokens in this run: %s%s", tokens, cost)


class CostEstimator(LightningModule):
    """Goes over the records that a teacher would be asked about, sends nothing and writes nothing.

    Args:
        teacher: whose prompts, answer_log and prices are meant.
    """

    writes_output = True

    def __init__(self, teacher: "TeacherModule") -> None:
        super().__init__()
        # in a list, so that it does not become a part of this module, with hooks of its own
        self._teacher = [teacher]
        self.to_ask = self.answered = self.characters = 0

    def transfer_batch_to_device(self, batch: list[Record], device: torch.device, dataloader_idx: int) -> list[Record]:
        """Leave records where they are."""
        return batch

    def on_predict_start(self) -> None:
        """Read what was answered before."""
        self._teacher[0].answer_log.read()

    def predict_step(self, records: list[Record], index: int) -> list[Any]:
        """Count a chunk."""
        teacher = self._teacher[0]
        for record in records:
            case = teacher.case(record)
            if teacher.is_over(case):
                self.answered += 1
            else:
                self.to_ask += 1
                self.characters += len(case.text)
        return []

    def on_predict_end(self) -> None:
        """Say it."""
        for line in self.lines():
            log.info("%s", line)

    def lines(self) -> list[str]:
        """Return the estimate, for one answer a record and for as many as may be asked."""
        teacher = self._teacher[0]
        answer_log, most = teacher.answer_log, 1 + teacher.ask_again
        if answer_log.counted and answer_log.prompt_tokens and answer_log.completion_tokens:
            per_token = answer_log.characters / answer_log.prompt_tokens
            written = answer_log.completion_tokens / answer_log.counted
            how = f"as {answer_log.counted:,} answers in {answer_log.path} measure"
        else:
            per_token, written = teacher.characters_per_token, float(teacher.expected_tokens)
            how = f"at {per_token:g} characters a token and {written:g} tokens an answer, which are guesses"
        read, wrote = self.characters / per_token, self.to_ask * written
        lines = [
            f"{self.to_ask:,} records to ask {teacher.generator.model}, {self.answered:,} already answered",
            f"about {read:,.0f} prompt tokens and {wrote:,.0f} output tokens, {how}",
        ]
        if teacher.prices.known:
            cost = teacher.prices.of(read, wrote)
            lines.append(f"cost about {cost:,.2f}; up to {most * cost:,.2f} if every record were asked {most} times")
        else:
            lines.append(f"cost not known without model.prices; a refused record is asked up to {most} times")
        rate = teacher.generator.requests_per_minute
        if rate is not None:
            minutes = self.to_ask / rate
            lines.append(f"at least {minutes:,.1f} minutes at {rate:g} requests a minute")
        return [*lines, "nothing was sent or written"]
