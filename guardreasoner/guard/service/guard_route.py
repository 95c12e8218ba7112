"""``POST /v1/guard``: the full verdict on a conversation, as JSON or as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from guardreasoner.formats import GuardFormat
from guardreasoner.guard.query import Query
from guardreasoner.guard.reasoning_stream import ReasoningStream
from guardreasoner.guard.service.batching import Judged, Waiting
from guardreasoner.guard.service.bodies import GuardBody, json_schema
from guardreasoner.guard.service.judging import GuardService
from guardreasoner.guard.service.refusals import Refusal, json_response
from guardreasoner.guard.service.request_log import add_to_log

_PING = 5.0
"""Seconds after which a waiting client gets a comment, so that no proxy closes the connection."""


def guard_routes(service: GuardService) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post("/v1/guard", openapi_extra=json_schema(GuardBody), summary="Judge a conversation")
    async def guard(request: Request) -> Response:
        """Return the result: whether the conversation is flagged, and verdict, score and band for each task.

        With ``stream`` true, the answer is a stream of the events ``accepted``, ``started``, ``reasoning`` (each with
        the text that is new) and ``result``. After ``restarted``, the reasoning begins anew. A stream that ends without
        ``result``, as after ``error``, holds no verdict.
        """
        body = await service.read(request, GuardBody)
        query = Query(body.prompt, body.response, body.messages, body.policy, body.speed)
        if not body.stream:
            (judged,) = await service.judge(request, [query])
            return json_response(guard_json(service, request, judged))
        spoken = _Spoken(service.guard.prompt_tokenizer.format)
        waiting = service.submit(request, [query], heard=spoken.hear)
        events = _events(service, request, waiting, spoken)
        return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})

    return router


def guard_json(service: GuardService, request: Request, judged: Judged) -> dict[str, Any]:
    """Return the result of a conversation as the service gives it."""
    usage = {"prompt_tokens": judged.prompt_tokens, "completion_tokens": judged.result.tokens}
    return {"id": request.state.request_id, "model": service.name, **judged.result.as_json(), "usage": usage}


def event(name: str, content: Any) -> str:
    """Return a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(content, allow_nan=False)}\n\n"


class _Spoken:
    """The reasoning of one conversation on its way from the engine to the client.

    Args:
        format: format of the guard.
    """

    def __init__(self, format: GuardFormat) -> None:
        self.news = asyncio.Event()
        """Set when there is something to send."""

        self._reasoning = ReasoningStream(format)
        self._restarted = False

    def hear(self, piece: str | None) -> None:
        """Take a piece of the answer; None: the engine starts again."""
        if piece is None:
            self._restarted |= self._reasoning.restart()
        elif piece:
            self._reasoning.add(piece)
        self.news.set()

    def events(self, final: str | None = None, is_final: bool = False) -> Iterator[str]:
        """Yield the events that are due.

        Args:
            final: the whole reasoning, which is known at the end.
            is_final: whether this is the end.
        """
        self._restarted |= is_final and self._reasoning.finish(final or "")
        if self._restarted:
            self._restarted = False
            yield event("restarted", {})
        if text := self._reasoning.take():
            yield event("reasoning", {"text": text})


async def _events(
    service: GuardService, request: Request, waiting: list[Waiting], spoken: _Spoken
) -> AsyncIterator[str]:
    """Yield the events of a conversation; if the client hangs up, it leaves the queue, or the row of its batch."""
    yield event("accepted", {"id": request.state.request_id, "model": service.name, "speed": waiting[0].speed})
    judging = asyncio.ensure_future(service.outcome(request, waiting))
    taken, news, has_started = waiting[0].taken, spoken.news, False
    for awaited in (judging, taken):
        awaited.add_done_callback(lambda _: news.set())
    try:
        while not judging.done():
            try:
                await asyncio.wait_for(news.wait(), _PING)
            except TimeoutError:
                yield ": waiting\n\n"
            news.clear()
            if taken.done() and not has_started:
                has_started = True
                yield event("started", {})
            for due in spoken.events():
                yield due
        (judged,) = judging.result()
        for due in spoken.events(judged.result.reasoning, is_final=True):
            yield due
        yield event("result", guard_json(service, request, judged))
    except Refusal as refusal:
        add_to_log(request, code=refusal.code)
        yield event("error", refusal.body())
    finally:
        judging.cancel()
        for one in waiting:
            one.answer.cancel()
