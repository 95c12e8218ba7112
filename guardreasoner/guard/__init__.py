"""A guard in use: load a trained model, and ask it about conversations."""

import asyncio
import gc
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration import Calibration
from guardreasoner.evaluation.calibration.stored import calibrations_in
from guardreasoner.formats import GuardFormat
from guardreasoner.generators import Generator, Scorer, Watch
from guardreasoner.guard.answering import Answering
from guardreasoner.guard.cascade import Asked, Cascade
from guardreasoner.guard.query import Query, record_of_query
from guardreasoner.guard.results import (
    GuardResult,
    GuardSpeed,
    TaskResult,
    UnparsedError,
    UnparsedRule,
    applies,
)
from guardreasoner.guard.streaming import GuardStream, JudgedSentence, judges_response
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Message, Speed
from guardreasoner.tasks import Task
from guardreasoner.workflow.guard_file import GUARD_FILE

if TYPE_CHECKING:
    from guardreasoner.formats.published import PublishedFormat
    from guardreasoner.model.backbone import Backbone

__all__ = ["Guard", "GuardResult", "GuardStream", "JudgedSentence", "Query", "TaskResult", "UnparsedError"]

_JUDGED = {
    "last_user": "a message of the user",
    "last_assistant": "a response of the assistant at the end",
    "tool_call": "a call of a tool",
    "conversation": "the conversation",
}
"""What a task needs, for messages."""


class Guard:
    """A trained guard that judges conversations. Several threads and coroutines may use one guard at once.

    Args:
        backbone: the model; an engine that needs its weights must find them loaded.
        engine: the engine that writes the answers, greedily, and scores their labels if it can.
        calibrations: calibrations of the model, at most one for each task and kind of score.
        speed: speed of the answers; None: the one that the model was trained for, the first if both.
        unparsed: what an answer without a clear verdict does.

    Raises:
        InputError: the model was not trained for the speed, or none of its tasks flags anything.
    """

    def __init__(
        self,
        backbone: "Backbone",
        engine: Generator,
        calibrations: Iterable[Calibration] = (),
        *,
        speed: GuardSpeed | None = None,
        unparsed: UnparsedRule = "block",
    ) -> None:
        if unparsed not in get_args(UnparsedRule):
            raise InputError(f"unparsed: found {unparsed!r}, expected {' or '.join(get_args(UnparsedRule))}")
        self.backbone = backbone
        self.engine = engine
        self.calibrations = tuple(calibrations)
        self.unparsed: UnparsedRule = unparsed
        self.prompt_tokenizer = backbone.prompt_tokenizer
        self.speed: GuardSpeed = self._checked_speed(speed, "speed")
        if not any(task.flags for task in self.tasks):
            names = ", ".join(task.name for task in self.tasks)
            raise InputError(f"{backbone.path}: none of its tasks flags a conversation: {names}")
        self._context = _context(backbone)
        kinds = {calibration.score for calibration in self.calibrations}
        by_default = engine.can_score and engine.scores_by_default
        scored = [one for one in get_args(Speed) if by_default or (engine.can_score and one in kinds)]
        answering = Answering(engine, self.prompt_tokenizer, scored)
        self._cascade = Cascade(answering, self.tasks, self.calibrations)
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
        base_path: str | Path | None = None,
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
            base_path: folder or hub id of the base model of an adapter folder that names another place, as in
                :class:`guardreasoner.Backbone`.

        Raises:
            InputError: there is no such model, one of its files is damaged, it does not have the speed, or
                ``base_path`` is not the model that the adapter was trained on.
        """
        # OpenMP threads that spin while they wait slow small models down many times if other processes need the
        # processors, as the application does that asks the guard. It has no effect once torch is imported.
        os.environ.setdefault("GOMP_SPINCOUNT", "100")
        with _paused_collection():
            from guardreasoner.model.backbone import Backbone

            path, base = str(path), None if base_path is None else str(base_path)
            backbone = Backbone(path, format=format, quantization=quantization, dtype=dtype, base_path=base)
            made = _local(backbone) if engine is None else engine(backbone)
            tasks = backbone.prompt_tokenizer.format.tasks
            guard = cls(backbone, made, _calibrations(path, tasks), speed=speed, unparsed=unparsed)
            if quantization and not made.needs_weights:
                raise InputError(
                    f"quantization {quantization}: {type(made).__name__} does not load the weights here",
                    "leave it out, or use the local engine",
                )
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

    def check_many(
        self, queries: Iterable[Query], watches: Mapping[int, Watch] = MappingProxyType({})
    ) -> list[GuardResult]:
        """Judge conversations in one batch; return the results in their order.

        A result does not depend on the other conversations, except through rounding.

        Args:
            queries: the conversations.
            watches: by the index of a query, a function that is called with each new piece of its reasoned answer while
                it is written; see :data:`guardreasoner.generators.Watch`. If it returns False, nobody waits for that
                result any more: the answer may end early, and is then unparsed.

        Raises:
            InputError: a query is invalid; the message names it by its index.
            UnparsedError: an answer has no clear verdict, and the guard was told to raise.
        """
        return self._results([(f"queries[{index}].", query) for index, query in enumerate(queries)], watches)

    def require(self, query: Query) -> None:
        """Check a query without asking the model.

        Raises:
            InputError: an argument is invalid, or the model cannot judge such a conversation.
        """
        self._asked(query, "")

    def prompt_lengths(self, query: Query) -> dict[Speed, int]:
        """Check a query without asking the model; return the tokens of its prompt at each speed that it may be asked.

        Raises:
            InputError: the query is invalid, or the model cannot judge such a conversation.
        """
        return {speed: len(prompt) for speed, prompt in self._asked(query, "").prompts.items()}

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

    def stream(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Message | Mapping[str, Any]] | None = None,
        policy: str | None = None,
        max_sentence: int = 300,
    ) -> GuardStream:
        """Return a stream that judges the response to a conversation after each sentence, at the direct speed.

        The local engine computes each token of the conversation once, and keeps its keys and values in the stream.
        Other engines are asked about the whole text so far.

        Args:
            prompt: text of the user.
            messages: the conversation before the response, instead of ``prompt``.
            policy: rules to judge by, for a model that was trained with policies.
            max_sentence: number of characters after which a sentence is cut.

        Raises:
            InputError: an argument is invalid, the model has no direct answers, or it judges no responses.
        """
        if not any(task.flags and judges_response(task) for task in self.tasks):
            parts = ", ".join(f"{task.name} ({_JUDGED[task.judges]})" for task in self.tasks)
            raise InputError(f"{self.backbone.name} cannot stream: none of its tasks flags a response; it has {parts}")
        before = record_of_query(Query(prompt, None, messages, policy, "direct")).messages
        if before[-1].role == "assistant":
            raise InputError(
                "messages: the last one is of the assistant, expected the conversation before its response"
            )
        scorer = self.engine.incremental_scorer() if self.engine.can_score else None

        def query(response: str) -> Query:
            return Query(messages=[*before, Message("assistant", response)], policy=policy, speed="direct")

        self.require(query("."))
        return GuardStream(
            lambda response: self._results([("", query(response))], scorer=scorer)[0], self.tasks, max_sentence
        )

    async def astream(
        self,
        pieces: AsyncIterable[str],
        prompt: str | None = None,
        *,
        messages: Sequence[Message | Mapping[str, Any]] | None = None,
        policy: str | None = None,
        max_sentence: int = 300,
    ) -> AsyncIterator[JudgedSentence]:
        """Judge a response after each sentence, in the guard's own thread; see :meth:`stream`.

        Args:
            pieces: the pieces of the response.
            prompt: text of the user.
            messages: the conversation before the response, instead of ``prompt``.
            policy: rules to judge by.
            max_sentence: number of characters after which a sentence is cut.
        """
        stream = self.stream(prompt, messages=messages, policy=policy, max_sentence=max_sentence)
        run = asyncio.get_running_loop().run_in_executor
        async for piece in pieces:
            stream.append(piece)
            while stream.has_sentence:
                if (sentence := await run(self._thread, stream.judge_next)) is not None:
                    yield sentence
        stream.finish()
        while stream.has_sentence:
            if (sentence := await run(self._thread, stream.judge_next)) is not None:
                yield sentence

    @property
    def _format(self) -> GuardFormat:
        return self.prompt_tokenizer.format

    async def _in_thread(self, queries: Sequence[tuple[str, Query]]) -> list[GuardResult]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._results, queries)

    def _results(
        self,
        queries: Sequence[tuple[str, Query]],
        watches: Mapping[int, Watch] = MappingProxyType({}),
        scorer: Scorer | None = None,
    ) -> list[GuardResult]:
        """Return the results of queries, each given with its place in messages; see :meth:`Cascade.results`.

        Raises:
            InputError: a query is invalid, or the engine fails.
            UnparsedError: an answer has no clear verdict, and the guard was told to raise.
        """
        asked = [self._asked(query, where) for where, query in queries]
        with self._lock:
            results = self._cascade.results(asked, watches, scorer)
        unclear = next((result for result in results if result.unparsed), None)
        if self.unparsed == "raise" and unclear is not None:
            raise UnparsedError(unclear)
        return results

    def _asked(self, query: Query, where: str) -> Asked:
        """Return what a query asks the model.

        Raises:
            InputError: the query is invalid, or the model cannot judge it at this speed.
        """
        place = where.removesuffix(".") or "the conversation"
        if not isinstance(query, Query):
            raise InputError(f"{place}: found {type(query).__name__}, expected a Query")
        speed = self.speed if query.speed is None else self._checked_speed(query.speed, f"{where}speed")
        record = record_of_query(query, where)
        if record.response is not None and all(task.judges == "last_user" for task in self.tasks):
            names = ", ".join(task.name for task in self.tasks)
            raise InputError(
                f"{place}: has a response, but {self.backbone.name} judges only {_JUDGED['last_user']} ({names})",
                "leave the response out, or ask a guard that judges it",
            )
        has_policies = any(task.uses_policy for task in self.tasks)
        if isinstance(self._format, PromptFormat) and has_policies != (record.policy is not None):
            what = "missing, but {} needs one" if has_policies else "given, but {} was not trained with policies"
            raise InputError(f"{where}policy: {what.format(self.backbone.name)}")
        prompts = {}
        for one in get_args(Speed) if speed == "auto" else (speed,):
            try:
                prompts[one] = tuple(self.prompt_tokenizer.prompt(record, one))
            except InputError as error:  # of the format, which names the record
                what = str(error).removeprefix(f"record {record.id}: ")
                raise InputError(f"{place}: {what}", error.hint) from None
            if self._context is not None and len(prompts[one]) >= self._context:
                most = f"{self.backbone.name} reads at most {self._context - 1:,}"
                raise InputError(f"{place}: the prompt has {len(prompts[one]):,} tokens, {most}")
        flagging = [task for task in self.tasks if task.flags]
        if not any(applies(task, record) for task in flagging):
            parts = ", ".join(f"{task.name} ({_JUDGED[task.judges]})" for task in flagging)
            raise InputError(f"{place}: contains nothing for {self.backbone.name} to judge: it judges only {parts}")
        return Asked(record, speed, prompts)

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


@contextmanager
def _paused_collection() -> Iterator[None]:
    """Pause the garbage collector, which takes a seventh of the time of importing torch and transformers."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _local(backbone: "Backbone") -> Generator:
    from guardreasoner.generators.local import LocalGenerator

    return LocalGenerator(backbone, temperature=0.0)


def _context(backbone: "Backbone") -> int | None:
    """Return the number of tokens that a model reads, from its config; None if it does not say."""
    from guardreasoner.model.loading import file_of, read_json

    config = read_json(file_of(backbone.weights_path, "config.json")) or {}
    most = (config.get("text_config") or config).get("max_position_embeddings")
    return most if isinstance(most, int) else None


def _calibrations(path: str, tasks: Sequence[Task]) -> list[Calibration]:
    """Return the calibrations in a model folder.

    Raises:
        InputError: the file is damaged, or a calibration is of no task, or of one whose positive label does not flag.
    """
    from guardreasoner.model.loading import file_of

    file, by_name = file_of(path, GUARD_FILE), {task.name: task for task in tasks}
    found = calibrations_in(file)
    for name in dict.fromkeys(one.task for one in found):
        if name not in by_name:
            known = ", ".join(by_name)
            raise InputError(f"{file}: calibration of {name}: the model has no such task", f"it has {known}")
        if by_name[name].flags == "others":
            what = f"its score is the probability of {by_name[name].positive!r}, which does not flag"
            raise InputError(f"{file}: calibration of {name}: {what}", "remove it from the file")
    return found
