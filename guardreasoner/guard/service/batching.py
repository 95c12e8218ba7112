"""The queue in front of a guard: conversations that wait are judged together, and each gets its own result back."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count

from guardreasoner.errors import InputError
from guardreasoner.guard import Guard
from guardreasoner.guard.query import Query
from guardreasoner.guard.results import GuardResult, GuardSpeed
from guardreasoner.guard.service.failures import log_failure
from guardreasoner.records import Speed


class QueueFull(Exception):
    """The queue has no place.

    Args:
        waiting: number of conversations in the queue.
        seconds: estimated time until there is a place.
    """

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"{waiting} conversations wait")
        self.waiting = waiting
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Judged:
    """A result with the cost of its prompts.

    Args:
        result: the result.
        prompt_tokens: number of tokens of the prompt; of ``auto``, of all prompts that were asked.
    """

    result: GuardResult
    prompt_tokens: int


@dataclass(eq=False, slots=True)
class Waiting:
    """A conversation in the queue.

    Args:
        number: its number among all conversations.
        query: the conversation.
        speed: the speed that it is judged at.
        answer: the result, or an exception: :class:`InputError` if the guard cannot judge the query, any other if the
            engine failed. Cancelled: nobody waits for it any more.
        taken: done when a batch takes the conversation.
        heard: called in the event loop with each new piece of a reasoned answer while the engine writes it, and with
            None if the engine failed and writes the answer again from its start.
    """

    number: int
    query: Query
    speed: GuardSpeed
    answer: "asyncio.Future[Judged]"
    taken: "asyncio.Future[None]"
    heard: "Callable[[str | None], None] | None" = None

    def hear(self, piece: str | None) -> bool:
        """Pass on a piece from the thread of the batches; return whether somebody still waits for the answer."""
        if self.heard is not None:
            self.answer.get_loop().call_soon_threadsafe(self.heard, piece)
        return not self.answer.done()


BatchSeen = Callable[[GuardSpeed, int, float], None]
"""Called after each batch with its speed, its size and its seconds."""


class Batcher:
    """Judges conversations in batches, one batch at a time, in a thread of its own.

    A batch has one speed, that of the conversation which has waited longest, so that direct answers do not wait for
    reasoned ones of their own batch. A batch that is not full starts after ``linger`` seconds without an arrival.

    Args:
        guard: the guard.
        limit: most conversations in the queue; those of the current batch are not in it.
        size: most conversations in a batch.
        linger: seconds without an arrival after which a batch starts.
        seen: called after each batch.
    """

    def __init__(
        self, guard: Guard, *, limit: int = 256, size: int = 64, linger: float = 0.002, seen: BatchSeen | None = None
    ) -> None:
        self.guard = guard
        self.limit = limit
        self.size = size
        self.linger = linger
        self.seen = seen
        self.is_running = False
        self._numbers = count()
        self._waiting: dict[int, Waiting] = {}
        self._arrived = asyncio.Event()
        self._seconds_each = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, queries: Sequence[Query], heard: Callable[[str | None], None] | None = None) -> list[Waiting]:
        """Put conversations into the queue, all or none.

        Args:
            queries: the conversations.
            heard: called with the pieces of their reasoned answers; see :class:`Waiting`.

        Raises:
            QueueFull: there is no place for all of them.
        """
        if len(self._waiting) + len(queries) > self.limit:
            seconds = math.ceil(len(self._waiting) * self._seconds_each)
            raise QueueFull(len(self._waiting), min(max(seconds, 1), 60))
        loop = asyncio.get_running_loop()
        added = []
        for query in queries:
            speed = query.speed or self.guard.speed
            one = Waiting(next(self._numbers), query, speed, loop.create_future(), loop.create_future(), heard)
            self._waiting[one.number] = one
            one.answer.add_done_callback(partial(self._forget, one.number))
            added.append(one)
        self._arrived.set()
        return added

    async def run(self) -> None:
        """Judge what arrives until this is cancelled; the current batch is then finished."""
        loop = asyncio.get_running_loop()
        self.is_running = True
        with ThreadPoolExecutor(1, "guard-batch") as thread:
            try:
                while True:
                    await self._gather()
                    batch = self._take()
                    start = time.perf_counter()
                    outcomes = await loop.run_in_executor(thread, self._judge, batch)
                    seconds = time.perf_counter() - start
                    for one, outcome in zip(batch, outcomes, strict=True):
                        _deliver(one, outcome)
                    if batch:
                        self._seconds_each = seconds / len(batch)
                        if self.seen is not None:
                            self.seen(batch[0].speed, len(batch), seconds)
            finally:
                self.is_running = False

    def _forget(self, number: int, _: object) -> None:
        """Remove a conversation from the queue that nobody waits for any more."""
        self._waiting.pop(number, None)

    async def _gather(self) -> None:
        """Wait until conversations are in the queue, and until a batch is full or no more arrive."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        before = 0
        while before < len(self._waiting) < self.size and self.linger:
            before = len(self._waiting)
            await asyncio.sleep(self.linger)

    def _take(self) -> list[Waiting]:
        """Remove a batch from the queue: the longest waiting conversation, and others of its speed."""
        batch: list[Waiting] = []
        for one in self._waiting.values():
            if len(batch) < self.size and (not batch or one.speed == batch[0].speed):
                batch.append(one)
        for one in batch:
            del self._waiting[one.number]
            if not one.taken.done():
                one.taken.set_result(None)
        return batch

    def _judge(self, batch: Sequence[Waiting]) -> list[Judged | Exception]:
        """Return the result of each conversation, or what is wrong with it. This runs in the thread of the batches."""
        lengths = [self._lengths(one.query) for one in batch]
        valid = [number for number, length in enumerate(lengths) if not isinstance(length, Exception)]
        results = dict(zip(valid, self._results([batch[number] for number in valid]), strict=True))
        outcomes: list[Judged | Exception] = []
        for number, (one, length) in enumerate(zip(batch, lengths, strict=True)):
            if isinstance(length, Exception):
                outcomes.append(length)
                continue
            result = results[number]
            if isinstance(result, GuardResult):
                asked = {"direct", result.speed} if one.speed == "auto" else {result.speed}
                outcomes.append(Judged(result, sum(tokens for speed, tokens in length.items() if speed in asked)))
            else:
                outcomes.append(result)
        return outcomes

    def _lengths(self, query: Query) -> dict[Speed, int] | Exception:
        try:
            return self.guard.prompt_lengths(query)
        except InputError as error:
            return error
        except Exception as error:
            return _engine_error(error)

    def _results(self, batch: Sequence[Waiting]) -> list[GuardResult | Exception]:
        """Return the results; a conversation at which the engine fails must not take the others with it."""
        if all(one.answer.done() for one in batch):  # nobody waits any more
            return [EngineError("cancelled") for _ in batch]
        try:
            watches = {number: one.hear for number, one in enumerate(batch) if one.heard is not None}
            return list(self.guard.check_many([one.query for one in batch], watches))
        except Exception as error:
            if len(batch) == 1:
                return [_engine_error(error)]
            for one in batch:
                one.hear(None)
            half = len(batch) // 2
            return [*self._results(batch[:half]), *self._results(batch[half:])]


class EngineError(Exception):
    """The engine failed at a conversation. The text names the exception, and nothing of the conversation."""


def _engine_error(error: Exception) -> EngineError:
    log_failure("engine failed", error)
    return EngineError(type(error).__name__)


def _deliver(one: Waiting, outcome: Judged | Exception) -> None:
    if one.answer.done():  # its client has gone, or its time is over
        return
    if isinstance(outcome, Exception):
        one.answer.set_exception(outcome)
    else:
        one.answer.set_result(outcome)
