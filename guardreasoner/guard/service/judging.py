"""What the routes share: a guard behind its queue, the limits, and one way to ask for verdicts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from guardreasoner.errors import InputError
from guardreasoner.guard import Guard
from guardreasoner.guard.query import Query, record_of_query
from guardreasoner.guard.service.batching import Batcher, Judged, QueueFull, Waiting
from guardreasoner.guard.service.bodies import Body, ClientGone, read_body
from guardreasoner.guard.service.metrics import ServiceMetrics
from guardreasoner.guard.service.refusals import Refusal, engine_failed, invalid, invalid_query, overloaded, timed_out
from guardreasoner.guard.service.request_log import add_to_log


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Limits of the service.

    Args:
        queue: most conversations that wait; also the most of one request.
        batch: most conversations in a batch.
        linger: seconds without a new conversation after which a batch that is not full starts.
        timeout: seconds within which a request must be read, and then judged.
        max_body: most bytes of a body.
    """

    queue: int = 256
    batch: int = 64
    linger: float = 0.002
    timeout: float = 30.0
    max_body: int = 1_000_000


class GuardService:
    """A guard behind its queue.

    Args:
        guard: the guard; an answer without a clear verdict must flag.
        name: name of the model that clients see.
        limits: limits of the service.
        log_texts: whether the log has the conversations and the answers.
    """

    def __init__(self, guard: Guard, name: str, limits: ServiceLimits, log_texts: bool = False) -> None:
        if guard.unparsed != "block":
            raise ValueError(f"unparsed: found {guard.unparsed!r}, expected 'block'")
        self.guard = guard
        self.name = name
        self.limits = limits
        self.log_texts = log_texts
        self.metrics = ServiceMetrics()
        self.batcher = Batcher(
            guard, limit=limits.queue, size=limits.batch, linger=limits.linger, seen=self.metrics.saw_batch
        )
        self.metrics.queue_length.set_function(lambda: len(self.batcher))

    @asynccontextmanager
    async def running(self, _: object = None) -> AsyncIterator[None]:
        """Judge what arrives while the block runs."""
        task = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def read(self, request: Request, model: type[Body]) -> Body:
        """Return the body of a request; see :func:`read_body`."""
        return await read_body(request, model, self.limits.max_body, self.limits.timeout)

    def require_model(self, model: str | None, *aliases: str) -> None:
        """Raise ``Refusal`` if a request names another model than this one."""
        if model is not None and model not in (self.name, *aliases):
            message = f"the model {model[:100]!a} does not exist; this server has {self.name!a}"
            raise Refusal(404, message, "model_not_found", param="model")

    def submit(
        self,
        request: Request,
        queries: Sequence[Query],
        where: str = "",
        heard: Callable[[str | None], None] | None = None,
    ) -> list[Waiting]:
        """Put the conversations of a request into the queue.

        Args:
            request: the request, whose log line gets the number of conversations.
            queries: the conversations.
            where: name of the field that holds them, if there may be several.
            heard: called with the pieces of their reasoned answers; see :class:`Waiting`.

        Raises:
            Refusal: one is invalid, there are too many for the queue, or it has no place now.
        """
        if len(queries) > self.limits.queue:
            raise invalid(
                f"{where}: found {len(queries):,} conversations, at most {self.limits.queue:,} fit", where, "too_many"
            )
        add_to_log(request, conversations=len(queries), speed=queries[0].speed or self.guard.speed)
        for number, query in enumerate(queries):
            try:
                record = record_of_query(query)
            except InputError as error:
                raise invalid_query(error, f"{where}[{number}]" if len(queries) > 1 else "") from None
            if self.log_texts:
                add_to_log(request, asked=[*request.state.fields.get("asked", []), record.texts()])
        if not self.batcher.is_running:
            raise engine_failed()
        try:
            return self.batcher.submit(queries, heard)
        except QueueFull as full:
            raise overloaded(full.waiting, full.seconds) from None

    async def judge(self, request: Request, queries: Sequence[Query], where: str = "") -> list[Judged]:
        """Return the results of the conversations of a request, in order.

        Raises:
            Refusal: there is no verdict on one of them.
            ClientGone: the client has hung up.
        """
        waiting = self.submit(request, queries, where)
        gone = asyncio.ensure_future(_hung_up(request))
        try:
            return await self.outcome(request, waiting, gone, where)
        finally:
            gone.cancel()

    async def outcome(
        self, request: Request, waiting: Sequence[Waiting], gone: "asyncio.Future[None] | None" = None, where: str = ""
    ) -> list[Judged]:
        """Return the results of conversations in the queue; see :meth:`judge`.

        Args:
            request: their request.
            waiting: the conversations.
            gone: done when the client has hung up; None if something else watches it.
            where: name of the field that holds them, if there may be several.
        """
        answers = asyncio.gather(*(one.answer for one in waiting), return_exceptions=True)
        try:
            awaited: set[asyncio.Future[Any]] = {answers} if gone is None else {answers, gone}
            done, _ = await asyncio.wait(awaited, timeout=self.limits.timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.answer.cancel()
        if answers in done:
            return self._judged(request, answers.result(), where)
        raise timed_out(self.limits.timeout) if not done else ClientGone()

    def _judged(self, request: Request, outcomes: Sequence[Judged | BaseException], where: str) -> list[Judged]:
        judged = []
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, InputError):
                raise invalid_query(outcome, f"{where}[{number}]" if len(outcomes) > 1 else "")
            if isinstance(outcome, BaseException):
                raise engine_failed()
            judged.append(outcome)
        results = [one.result for one in judged]
        self.metrics.saw_results(results)
        add_to_log(
            request,
            flagged=sum(result.flagged for result in results),
            unparsed=sum(result.unparsed for result in results),
            tokens=sum(result.tokens for result in results),
        )
        if self.log_texts:
            add_to_log(request, answered=[result.completion for result in results])
        return judged


async def _hung_up(request: Request) -> None:
    """Return when the client has hung up; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
