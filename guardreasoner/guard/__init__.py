"""A guard in use: load a trained model, and ask it about conversations."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, get_args

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration import Calibration
from guardreasoner.evaluation.label_scores import label_scores
from guardreasoner.formats import GuardFormat
from guardreasoner.generators import Generator, Request
from guardreasoner.guard.query import Query, record_of_query
from guardreasoner.guard.results import (
    GuardResult,
    GuardSpeed,
    TaskResult,
    UnparsedError,
    UnparsedRule,
    Written,
    interpret,
)
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Answer, Message, Record, Rollout, Speed
from guardreasoner.tasks import Task
from guardreasoner.workflow.guard_file import GUARD_FILE, read_calibrations

if TYPE_CHECKING:
    from guardreasoner.formats.published import PublishedFormat
    from guardreasoner.model.backbone import Backbone

__all__ = ["Guard", "GuardResult", "Query", "TaskResult", "UnparsedError"]

log = logging.getLogger("guardreasoner")

UNSURE = 0.4
"""Distance from 0.5 within which a direct score is unclear, if no calibration has a review band."""


class Guard:
    """A trained guard that judges conversations. Several threads and coroutines may use one guard at once.

    Args:
        backbone: the model; an engine that needs its weights must find them loaded.
        engine: the engine that writes the answers, greedily, and scores their labels if it can.
        calibrations: calibration by task.
        speed: speed of the answers; None: the one that the model was trained for, the first if both.
        unparsed: what an answer without a clear verdict does.

    Raises:
        InputError: the model was not trained for the speed, or none of its tasks flags anything.
    """

    def __init__(
        self,
        backbone: "Backbone",
        engine: Generator,
        calibrations: Mapping[str, Calibration] | None = None,
        *,
        speed: GuardSpeed | None = None,
        unparsed: UnparsedRule = "block",
    ) -> None:
        if unparsed not in get_args(UnparsedRule):
            raise InputError(f"unparsed: found {unparsed!r}, expected {' or '.join(get_args(UnparsedRule))}")
        self.backbone = backbone
        self.engine = engine
        self.calibrations = dict(calibrations or {})
        self.unparsed: UnparsedRule = unparsed
        self.prompt_tokenizer = backbone.prompt_tokenizer
        self.speed: GuardSpeed = self._checked_speed(speed, "speed")
        if not any(task.flags for task in self.tasks):
            names = ", ".join(task.name for task in self.tasks)
            raise InputError(f"{backbone.path}: none of its tasks flags a conversation: {names}")
        self._context = _context(backbone)
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, "guard")

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        speed: GuardSpeed | None = None,
        engine: Callable[["Backbone"], Generator] | None = None,
        unparsed: UnparsedRule = "block",
        format: "PromptFormat | PublishedFormat | None" = None,
        quantization: Literal["4bit"] | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str | None = None,
    ) -> "Guard":
        """Load a guard from a model folder, with its calibrations.

        Args:
            path: model folder or hub id; a folder may hold an adapter.
            speed: ``direct``, ``reasoned`` or ``auto``; None: what the model was trained for, the first if both.
            engine: factory of the engine, called with the backbone; None: :class:`guardreasoner.LocalGenerator`,
                greedy.
            unparsed: ``block`` flags a conversation whose answer has no clear verdict, ``raise`` raises
                :class:`UnparsedError`.
            format: format of a model whose folder does not name one, as in :class:`guardreasoner.Backbone`.
            quantization: "4bit" loads the weights as NF4.
            dtype: data type of the loaded weights.
            device: device of the weights, such as ``cuda:0``; None: the first GPU or else the CPU.

        Raises:
            InputError: there is no such model, one of its files is damaged, or it does not have the speed.
        """
        from guardreasoner.model.backbone import Backbone

        path = str(path)
        backbone = Backbone(path, format=format, quantization=quantization, dtype=dtype)
        made = _local(backbone) if engine is None else engine(backbone)
        tasks = backbone.prompt_tokenizer.format.tasks
        guard = cls(backbone, made, _calibrations(path, tasks), speed=speed, unparsed=unparsed)
        if made.needs_weights:
            import torch

            backbone.load()
            backbone.eval()
            backbone.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return guard

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the model."""
        return self._format.tasks

    @property
    def speeds(self) -> tuple[GuardSpeed, ...]:
        """Speeds that can be asked for, the default of the model first."""
        trained = self._format.speeds
        if not trained:
            return tuple(speed for speed in get_args(Speed) if self._format.has(speed))
        return (*trained, "auto") if len(trained) > 1 else trained

    def check(
        self,
        prompt: str | None = None,
        response: str | None = None,
        *,
        messages: Sequence[Message | Mapping[str, Any]] | None = None,
        policy: str | None = None,
        speed: GuardSpeed | None = None,
    ) -> GuardResult:
        """Judge one conversation; the arguments are those of :class:`Query`.

        Raises:
            InputError: an argument is invalid, or the model cannot judge such a conversation.
            UnparsedError: the answer has no clear verdict, and the guard was told to raise.
        """
        return self._results([("", Query(prompt, response, messages, policy, speed))])[0]

    def check_many(self, queries: Iterable[Query]) -> list[GuardResult]:
        """Judge conversations in one batch; return the results in their order.

        A result does not depend on the other conversations, except through rounding.

        Raises:
            InputError: a query is invalid; the message names it by its index.
            UnparsedError: an answer has no clear verdict, and the guard was told to raise.
        """
        return self._results([(f"queries[{index}].", query) for index, query in enumerate(queries)])

    def require(self, query: Query) -> None:
        """Check a query without asking the model.

        Raises:
            InputError: an argument is invalid, or the model cannot judge such a conversation.
        """
        self._asked(query, "")

    async def acheck(
        self,
        prompt: str | None = None,
        response: str | None = None,
        *,
        messages: Sequence[Message | Mapping[str, Any]] | None = None,
        policy: str | None = None,
        speed: GuardSpeed | None = None,
    ) -> GuardResult:
        """Judge one conversation in the guard's own thread; see :meth:`check`."""
        query = Query(prompt, response, messages, policy, speed)
        return (await self._in_thread([("", query)]))[0]

    async def acheck_many(self, queries: Iterable[Query]) -> list[GuardResult]:
        """Judge conversations in the guard's own thread; see :meth:`check_many`."""
        return await self._in_thread([(f"queries[{index}].", query) for index, query in enumerate(queries)])

    @property
    def _format(self) -> GuardFormat:
        return self.prompt_tokenizer.format

    async def _in_thread(self, queries: Sequence[tuple[str, Query]]) -> list[GuardResult]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._results, queries)

    def _results(self, queries: Sequence[tuple[str, Query]]) -> list[GuardResult]:
        """Return the results of queries, each given with its place in messages; equal queries are asked once."""
        asked = [self._asked(query, where) for where, query in queries]
        with self._lock:
            results = self._answered({(record.id, speed): record for record, speed in asked})
        found = [results[record.id, speed] for record, speed in asked]
        if self.unparsed == "raise" and (unclear := next((one for one in found if one.unparsed), None)):
            raise UnparsedError(unclear)
        return found

    def _asked(self, query: Query, where: str) -> tuple[Record, GuardSpeed]:
        """Return the record of a query that the model can judge, and the speed of the answer.

        Raises:
            InputError: the query is invalid, or the model cannot judge it at this speed.
        """
        speed = self.speed if query.speed is None else self._checked_speed(query.speed, f"{where}speed")
        record = record_of_query(query, where)
        has_policies = any(task.uses_policy for task in self.tasks)
        if isinstance(self._format, PromptFormat) and has_policies != (record.policy is not None):
            if has_policies:
                raise InputError(f"{where}policy: missing, but {self.backbone.name} judges by one")
            raise InputError(f"{where}policy: given, but {self.backbone.name} judges by none")
        place = where.removesuffix(".") or "the conversation"
        for asked in get_args(Speed) if speed == "auto" else (speed,):
            try:
                length = len(self.prompt_tokenizer.prompt(record, asked))
            except InputError as error:  # of the format, which names the record
                what = str(error).removeprefix(f"record {record.id}: ")
                raise InputError(f"{place}: {what}", error.hint) from None
            if self._context is not None and length >= self._context:
                most = f"{self.backbone.name} reads at most {self._context - 1:,}"
                raise InputError(f"{place}: the prompt has {length:,} tokens, {most}")
        return record, speed

    def _answered(self, asked: Mapping[tuple[str, GuardSpeed], Record]) -> dict[tuple[str, GuardSpeed], GuardResult]:
        """Return the result of each record at each speed: all direct answers first, then the reasoned ones."""
        quick = {record.id: record for (_, speed), record in asked.items() if speed != "reasoned"}
        direct = self._written(list(quick.values()), "direct")
        slow = {
            record.id: record
            for (_, speed), record in asked.items()
            if speed == "reasoned" or (speed == "auto" and self._is_unclear(direct[record.id]))
        }
        reasoned = self._written(list(slow.values()), "reasoned")
        results = {}
        for record_id, speed in asked:
            if speed == "direct" or record_id not in reasoned:
                written = direct[record_id]
            else:
                written = reasoned[record_id]
                if speed == "auto":
                    written = replace(written, tokens=written.tokens + direct[record_id].tokens)
            results[record_id, speed] = interpret(written, self.tasks, self.calibrations)
        return results

    def _is_unclear(self, written: Written) -> bool:
        """Return whether a direct answer leaves a task that flags in its review band, or without a clear verdict."""
        result = interpret(written, self.tasks, self.calibrations)
        return any(_is_unclear(result.tasks[task.name]) for task in self.tasks if task.flags)

    def _written(self, records: Sequence[Record], speed: Speed) -> dict[str, Written]:
        """Return the answers to records, by id."""
        if not records:
            return {}
        by_id = {record.id: record for record in records}
        completions = {one.record_id: one for one in self.engine.generate(self._requests(records, speed))}
        if completions.keys() != by_id.keys():
            raise InputError(
                f"{type(self.engine).__name__} returned {len(completions)} answers, requested {len(records)}"
            )
        # a lone surrogate is legal in a server's JSON but cannot be written to a file
        texts = {key: one.text.encode("utf-8", "replace").decode() for key, one in completions.items()}
        verdicts = {key: self._format.parse(text) for key, text in texts.items()}
        answers = [
            Answer(
                record, Rollout(record.id, self.backbone.name, "", 0, 0, texts[record.id], speed), verdicts[record.id]
            )
            for record in records
        ]
        scores = self._scores(speed)
        probabilities = label_scores(answers, self.engine, self.prompt_tokenizer) if scores else [{} for _ in answers]
        return {
            record.id: Written(
                record,
                texts[record.id],
                speed,
                verdicts[record.id],
                self._format.reasoning(texts[record.id]),
                labels,
                completions[record.id].completion_tokens or 0,
                scores,
            )
            for record, labels in zip(records, probabilities, strict=True)
        }

    def _requests(self, records: Sequence[Record], speed: Speed) -> list[Request]:
        prompts = self.prompt_tokenizer.prompts(records, [speed] * len(records))
        return [
            Request(record.id, tuple(ids), self.prompt_tokenizer.text(record, speed), (0,))
            for record, ids in zip(records, prompts, strict=True)
        ]

    def _scores(self, speed: Speed) -> bool:
        """Return whether answers of a speed are scored: if the engine does so by default, or a calibration needs it."""
        is_needed = any(calibration.score == speed for calibration in self.calibrations.values())
        return self.engine.can_score and (self.engine.scores_by_default or is_needed)

    def _checked_speed(self, speed: GuardSpeed | None, where: str) -> GuardSpeed:
        """Return a speed that the model has; None: its default.

        Raises:
            InputError: the speed is unknown, or the model was not trained for it.
        """
        if speed is None:
            return self._format.speed()
        if speed not in get_args(GuardSpeed):
            raise InputError(f"{where}: found {speed!r}, expected {', '.join(get_args(GuardSpeed))}")
        if speed not in self.speeds:
            raise InputError(
                f"{where}: {speed}, but {self.backbone.name} has {' and '.join(self.speeds)} answers alone",
                "recipe.direct_share above 0 trains a model for both speeds" if speed != "reasoned" else None,
            )
        return speed


def _local(backbone: "Backbone") -> Generator:
    from guardreasoner.generators.local import LocalGenerator

    return LocalGenerator(backbone, temperature=0.0)


def _context(backbone: "Backbone") -> int | None:
    """Return the number of tokens that a model reads, from its config; None if it does not say."""
    from guardreasoner.model.loading import read_json

    config = read_json(Path(backbone.path) / "config.json") or {}
    most = config.get("max_position_embeddings")
    return most if isinstance(most, int) else None


def _calibrations(path: str, tasks: Sequence[Task]) -> dict[str, Calibration]:
    """Return the calibrations in a model folder by task; those of unknown tasks are an error."""
    file = Path(path) / GUARD_FILE
    known = {task.name for task in tasks}
    found = {task: Calibration.from_json(task, row, str(file)) for task, row in read_calibrations(file).items()}
    if unknown := sorted(found.keys() - known):
        raise InputError(
            f"{file}: calibration of {unknown[0]}: the model has no such task", f"it has {', '.join(known)}"
        )
    return found


def _is_unclear(result: TaskResult) -> bool:
    if result.band is not None:
        return result.band in ("review", "unparsed")
    return result.score is not None and abs(result.score - 0.5) < UNSURE
