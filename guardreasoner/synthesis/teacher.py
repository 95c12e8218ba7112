"""Teacher synthesis: a strong model behind a server writes reasoning that leads to known labels."""

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from guardreasoner.errors import InputError
from guardreasoner.generators import Request
from guardreasoner.generators.progress import RecordProgress, record_total
from guardreasoner.generators.retries import Failure
from guardreasoner.generators.server import Reply, ServerGenerator
from guardreasoner.records import Record, Rollout, write_jsonl
from guardreasoner.synthesis.answer_log import AnswerLog
from guardreasoner.synthesis.prompt import STEP_PATTERN, check_step_pattern, compile_template
from guardreasoner.synthesis.teacher_requests import PendingRecord, TeacherRequests
from guardreasoner.tasks import GUARD_TASKS, Task, write_tasks
from guardreasoner.workflow import stop_signals
from guardreasoner.workflow.manifest import fingerprint
from guardreasoner.workflow.ranges import Count, CountOrZero, NotNegative, Positive, Seed

ANSWER_LOG = "answers.jsonl"

log = logging.getLogger("guardreasoner")


@dataclass(frozen=True)
class Prices:
    """Prices of tokens, in any currency; 0 if unknown.

    Args:
        input: price of a million prompt tokens.
        output: price of a million generated tokens.

    Raises:
        InputError: raised if a price is below 0.
    """

    input: NotNegative = 0.0
    output: NotNegative = 0.0

    def __post_init__(self) -> None:
        if self.input < 0 or self.output < 0:
            raise InputError(f"model.prices: must be 0 or above, got {self.input} and {self.output}")

    @property
    def known(self) -> bool:
        """Whether any price is set."""
        return bool(self.input or self.output)

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the cost of the given numbers of tokens."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


class TeacherModule(LightningModule):
    """Asks a server for the reasoning of labelled records and keeps the traces that pass the checks.

    ``predict`` sends requests, checks the answers, asks again if a trace is refused, and writes a folder of rollouts.
    ``records.jsonl`` and ``rollouts.jsonl`` hold the accepted traces, ``refused.jsonl`` the other records with the
    reasons, and ``answers.jsonl`` every answer. A run that is started again only asks for what is missing.

    Args:
        generator: the server.
        template: template of the teacher's prompt, see :func:`guardreasoner.synthesis.prompt.compile_template`.
        folder: output folder.
        tasks: tasks of the guard; None is GuardReasoner's three tasks.
        ask_all: ask for the reasoning of records that have reasoning, too; False leaves them out.
        ask_again: how often a record is asked again after its trace was refused.
        steps: pattern of a step heading, with the step's number as its only group; None skips the check of steps.
        seed: seed of the first answer to each record; each further answer has the next seed.
        prices: prices of a million tokens.
        characters_per_token: characters per prompt token, for the estimate as long as no server has counted tokens.
        expected_tokens: tokens per answer, for the estimate as long as no server has counted tokens.

    Raises:
        InputError: raised if the folder is missing, a number is out of range, or the template or pattern is invalid.
    """

    writes_output = True

    def __init__(
        self,
        generator: ServerGenerator,
        template: str,
        folder: str | None,
        tasks: Sequence[Task] | None = None,
        ask_all: bool = False,
        ask_again: CountOrZero = 2,
        steps: str | None = STEP_PATTERN,
        seed: Seed = 0,
        prices: Prices | None = None,
        characters_per_token: Positive = 4.0,
        expected_tokens: Count = 600,
    ) -> None:
        super().__init__()
        if not folder:
            raise InputError("output: missing; the answers are paid for and must be written to a folder")
        if ask_again < 0 or characters_per_token <= 0 or expected_tokens < 1:
            raise InputError("model: ask_again must be 0 or above, characters_per_token and expected_tokens above 0")
        if steps is not None:
            check_step_pattern(steps)
        self.generator = generator
        self.tasks = tuple(tasks or GUARD_TASKS)
        self.folder = Path(folder)
        self.answer_log = AnswerLog(self.folder / ANSWER_LOG)
        self.requests = TeacherRequests(
            generator,
            compile_template(template, self.tasks),
            self.answer_log,
            self.tasks,
            ask_all,
            ask_again,
            steps,
            seed,
        )
        self.prices = prices or Prices()
        self.characters_per_token = characters_per_token
        self.expected_tokens = expected_tokens
        self._fingerprint = fingerprint({"template": template, **generator.settings})
        self._queue: deque[PendingRecord] = deque()
        self._pending: dict[str, PendingRecord] = {}  # in the order of the records, not of the answers
        self._failed: dict[str, str] = {}
        self._counts = Counter[str]()

    def estimator(self) -> LightningModule:
        """Return a module that runs in place of this one and logs what a run would cost."""
        return CostEstimator(self.requests, self.prices, self.characters_per_token, self.expected_tokens)

    def transfer_batch_to_device(self, batch: list[Record], device: torch.device, dataloader_idx: int) -> list[Record]:
        """Return the records unchanged; nothing runs on a device."""
        return batch

    def on_predict_start(self) -> None:
        """Open the answer log.

        Raises:
            InputError: raised with several processes, with ``fast_dev_run``, or if the log cannot be used.
        """
        if self.trainer.world_size > 1:
            raise InputError("a teacher runs in one process", "set trainer.devices: 1")
        if getattr(self.trainer, "fast_dev_run", False):
            raise InputError(
                "trainer.fast_dev_run is not supported here, because each answer costs money",
                "--dry_run estimates; --trainer.limit_predict_batches 1 --data.chunk_size 8 asks for eight records",
            )
        if truncated := self.answer_log.open():
            log.warning(
                "%s: removed a truncated last line of %d bytes; its record will be asked again",
                self.answer_log.path,
                truncated,
            )
        stop_signals.defer()
        self._progress = RecordProgress(
            "synthesis", record_total(self.trainer.predict_dataloaders, self.trainer.num_predict_batches)
        )
        self._replies = self.generator.ask(self._next_request)

    def predict_step(self, records: list[Record], index: int) -> list[Any]:
        """Queue a chunk of records and process replies until all requests of the chunk are answered or in flight."""
        try:
            for record in self.requests.lacking(records):
                self._add(record)
            while self._queue:
                self._process(next(self._replies))
        except BaseException:
            self._stop()
            raise
        return []

    def on_predict_epoch_end(self) -> None:
        """Process the replies that are still in flight, and those to the requests that they lead to."""
        try:
            for reply in self._replies:
                self._process(reply)
        finally:
            self._stop()

    def on_predict_end(self) -> None:
        """Write accepted traces and refused records, and log a summary.

        Raises:
            InputError: raised if every record has reasoning, or no trace was accepted.
        """
        self.requests.require_any()
        accepted = [pending for pending in self._pending.values() if pending.accepted is not None]
        write_jsonl(self.folder / "refused.jsonl", self._refused())
        self._log_summary()
        if not accepted:
            reason, _, detail = next(iter(self._reasons()), ("no record", 0, ""))
            raise InputError(
                f"{self.folder}: no trace was kept of {len(self._pending):,} records; "
                f"most often: {reason}{': ' if detail else ''}{detail}",
                f"see {self.folder / 'refused.jsonl'} and {ANSWER_LOG} beside it",
            )
        write_jsonl(self.folder / "records.jsonl", (pending.record for pending in accepted))
        removed = Counter[str]()
        write_jsonl(self.folder / "rollouts.jsonl", (self._rollout(pending, removed) for pending in accepted))
        for part, count in sorted(removed.items()):
            log.info("%s removed from %s kept answers", part, f"{count:,}")
        write_tasks(self.folder, self.tasks)

    def _add(self, record: Record) -> None:
        if record.id in self._pending:
            raise InputError(f"record id {record.id!r} occurs twice; ids must be unique")
        pending = self._pending[record.id] = self.requests.pending(record)
        if self.requests.is_settled(pending):
            self._counts["before"] += 1
            self._settle(pending)
        else:
            self._queue.append(pending)

    def _next_request(self) -> Request | None:
        return self.requests.request(self._queue.popleft()) if self._queue else None

    def _process(self, reply: Reply) -> None:
        pending, counts = self._pending[reply.record_id], self._counts
        if isinstance(reply, Failure):
            self._failed[reply.record_id] = reply.reason
            self._settle(pending)
        else:
            self.requests.add_answer(pending, reply)
            counts["answers"] += 1
            counts["uncounted"] += reply.prompt_tokens is None
            counts["prompt_tokens"] += reply.prompt_tokens or 0
            counts["completion_tokens"] += reply.completion_tokens or 0
            if self.requests.is_settled(pending):
                self._settle(pending)
            else:
                self._queue.appendleft(pending)
        done = counts["kept"] + counts["refused"] + counts["failed"]
        status = f"kept {counts['kept']:,}, refused {counts['refused']:,}, failed {counts['failed']:,}"
        self._progress.show(done, done - counts["before"], status)
        stop_signals.note(f"{done:,} records are settled; run the same command again to resume")
        stop_signals.check()

    def _settle(self, pending: PendingRecord) -> None:
        pending.text = ""  # the largest part of the state, no longer needed
        failed = pending.record.id in self._failed
        self._counts["failed" if failed else "refused" if pending.accepted is None else "kept"] += 1

    def _stop(self) -> None:
        self._replies.close()
        self._progress.close()
        self.answer_log.close()

    def _refused(self) -> Iterator[dict[str, Any]]:
        for record_id, pending in self._pending.items():
            if record_id in self._failed:
                reasons = [f"request failed: {self._failed[record_id]}"]
                yield {"record_id": record_id, "attempts": pending.attempts, "faults": reasons}
            elif pending.accepted is None:
                yield {"record_id": record_id, "attempts": pending.attempts, "faults": pending.faults}

    def _rollout(self, pending: PendingRecord, removed: Counter[str]) -> Rollout:
        """Return the rollout of an accepted answer, and count what was removed from the answer."""
        assert pending.accepted is not None
        row = self.answer_log.row_at(pending.accepted)
        trace = self.requests.trace(row, pending.record)
        removed.update(trace.removed)
        seed = self.requests.seed + row["attempt"]
        return Rollout(pending.record.id, self.generator.server.model, self._fingerprint, 0, seed, trace.text)

    def _reasons(self) -> list[tuple[str, int, str]]:
        """Return (reason, records, details of the first record) of refused and failed records, most common first."""
        counts, details = Counter[str](), dict[str, str]()
        for row in self._refused():
            for fault in row["faults"]:
                # each message of a provider is a reason of its own
                reason, _, detail = (fault, "", "") if row["record_id"] in self._failed else fault.partition(": ")
                counts[reason] += 1
                details.setdefault(reason, detail)
        return [(reason, count, details[reason]) for reason, count in counts.most_common()]

    def _log_summary(self) -> None:
        counts = self._counts
        for line in self.requests.own_lines():
            log.info("%s", line)
        records = f"{len(self._pending):,} records, {counts['before']:,} of them answered before"
        log.info("%s: %s; %s answers in this run", self.folder, records, f"{counts['answers']:,}")
        log.info("%s", ", ".join(f"{outcome} {counts[outcome]:,}" for outcome in ("kept", "refused", "failed")))
        for reason, count, detail in self._reasons():
            log.info("  %s: %s%s", reason, f"{count:,}", f"; the first: {detail}" if detail else "")
        if self._failed:
            log.info("run the same command again to retry failed requests; refused.jsonl lists the reasons")
        if counts["answers"]:
            cost = self.prices.cost(counts["prompt_tokens"], counts["completion_tokens"])
            cost_text = f"; cost {cost:,.2f}" if self.prices.known else ""
            tokens = f"{counts['prompt_tokens']:,} in, {counts['completion_tokens']:,} out"
            missing = counts["uncounted"]
            note = f", without {missing:,} answers whose tokens the server did not count" if missing else ""
            log.info("tokens in this run: %s%s%s", tokens, cost_text, note)


class CostEstimator(LightningModule):
    """Estimates what a teacher's run over the records would cost; it sends and writes nothing.

    Args:
        requests: state of the teacher's requests.
        prices: prices of a million tokens.
        characters_per_token: characters per prompt token, used if no server has counted tokens.
        expected_tokens: tokens per answer, used if no server has counted tokens.
    """

    writes_output = True

    def __init__(
        self, requests: TeacherRequests, prices: Prices, characters_per_token: float, expected_tokens: int
    ) -> None:
        super().__init__()
        self.requests = requests
        self.prices = prices
        self.characters_per_token = characters_per_token
        self.expected_tokens = expected_tokens
        self.to_ask = self.answered = self.characters = 0

    def transfer_batch_to_device(self, batch: list[Record], device: torch.device, dataloader_idx: int) -> list[Record]:
        """Return the records unchanged; nothing runs on a device."""
        return batch

    def on_predict_start(self) -> None:
        """Read the answers of earlier runs."""
        self.requests.answer_log.read()

    def predict_step(self, records: list[Record], index: int) -> list[Any]:
        """Count the records of a chunk and the characters of their prompts."""
        for record in self.requests.lacking(records):
            pending = self.requests.pending(record)
            if self.requests.is_settled(pending):
                self.answered += 1
            else:
                self.to_ask += 1
                self.characters += len(pending.text)
        return []

    def on_predict_end(self) -> None:
        """Log the estimate.

        Raises:
            InputError: raised if every record has reasoning.
        """
        self.requests.require_any()
        for line in self.lines():
            log.info("%s", line)

    def lines(self) -> list[str]:
        """Return the estimate as lines: the cost of one answer per record, and of the maximum number of answers."""
        answer_log, generator = self.requests.answer_log, self.requests.generator
        max_attempts = 1 + self.requests.ask_again
        if answer_log.counted and answer_log.prompt_tokens and answer_log.completion_tokens:
            per_token = answer_log.characters / answer_log.prompt_tokens
            per_answer = answer_log.completion_tokens / answer_log.counted
            basis = f"as measured on {answer_log.counted:,} answers in {answer_log.path}"
        else:
            per_token, per_answer = self.characters_per_token, float(self.expected_tokens)
            basis = f"assuming {per_token:g} characters per token and {per_answer:g} tokens per answer"
        prompt_tokens, output_tokens = self.characters / per_token, self.to_ask * per_answer
        lines = [
            *self.requests.own_lines(),
            f"{self.to_ask:,} records to ask {generator.server.model}, {self.answered:,} already answered",
            f"about {prompt_tokens:,.0f} prompt tokens and {output_tokens:,.0f} output tokens, {basis}",
        ]
        if self.prices.known:
            cost = self.prices.cost(prompt_tokens, output_tokens)
            most = f"{max_attempts * cost:,.2f} if every record is asked {max_attempts} times"
            lines.append(f"cost about {cost:,.2f}; up to {most}")
        else:
            lines.append(f"cost unknown without model.prices; a refused record is asked up to {max_attempts} times")
        rate = generator.server.requests_per_minute
        if rate is not None:
            lines.append(f"at least {self.to_ask / rate:,.1f} minutes at {rate:g} requests per minute")
        return [*lines, "nothing was sent or written"]
