"""``POST /v1/guard``: the full verdict on a conversation, as JSON or as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from guardreasoner.guard.query import Query
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

        With ``stream`` true, the answer is a stream of the events ``accepted``, ``started``, ``reasoning`` (if the
        guard wrote one) and ``result``. A stream that ends without ``result``, as after ``error``, holds no verdict.
        """
        body = await service.read(request, GuardBody)
        query = Query(body.prompt, body.response, body.messages, body.policy, body.speed)
        if not body.stream:
            (judged,) = await service.judge(request, [query])
            return json_response(guard_json(service, request, judged))
        waiting = service.submit(request, [query])
        events = _events(service, request, waiting)
        return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})

    return router


def guard_json(service: GuardService, request: Request, judged: Judged) -> dict[str, Any]:
    """Return the result of a conversation as the service gives it."""
    usage = {"prompt_tokens": judged.prompt_tokens, "completion_tokens": judged.result.tokens}
    return {"id": request.state.request_id, "model": service.name, **judged.result.as_json(), "usage": usage}


def event(name: str, content: Any) -> str:
    """Return a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(content, allow_nan=False)}\n\n"


async def _events(service: GuardService, request: Request, waiting: list[Waiting]) -> AsyncIterator[str]:
    """Yield the events of a conversation; if the client hangs up, it leaves the queue."""
    yield event("accepted", {"id": request.state.request_id, "model": service.name, "speed": waiting[0].speed})
    judging = asyncio.ensure_future(service.outcome(request, waiting))
    taken = waiting[0].taken
    has_started = False
    try:
        while not judging.done():
            awaited: set[asyncio.Future[Any]] = {judging} if has_started else {judging, taken}
            done, _ = await asyncio.wait(awaited, timeout=_PING, return_when=asyncio.FIRST_COMPLETED)
            if not has_started and taken.done():
                has_started = True
                yield event("started", {})
            elif not done:
                yield ": waiting\n\n"
        (judged,) = judging.result()
        if judged.result.reasoning is not None:
            yield event("reasoning", {"text": judged.result.reasoning})
        yield event("result", guard_json(service, request, judged))
    except Refusal as refusal:
        add_to_log(request, code=refusal.code)
        yield event("error", refusal.body())
    finally:
        judging.cancel()
        for one in waiting:
            one.answer.cancel()
