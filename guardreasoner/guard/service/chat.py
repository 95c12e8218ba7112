"""``POST /v1/chat/completions``: the guard as a chat model, for clients that read the answers of guard models."""

import json
import time
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from guardreasoner.guard.decided_text import decided_text
from guardreasoner.guard.query import Query
from guardreasoner.guard.service.batching import Judged
from guardreasoner.guard.service.bodies import ChatBody, json_schema
from guardreasoner.guard.service.judging import GuardService
from guardreasoner.guard.service.refusals import Refusal, invalid, json_response


def chat_routes(service: GuardService) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    created = int(time.time())

    @router.post("/v1/chat/completions", openapi_extra=json_schema(ChatBody), summary="Ask the guard as a chat model")
    async def chat(request: Request) -> Response:
        """Judge the messages; the content of the answer is the model's text, and ``guard`` the full result.

        Where a threshold decides otherwise than the text, the verdict in the text is changed. An answer without a clear
        verdict is the error ``unparsed``, and one whose text cannot be changed to block is the error ``undecided``,
        since a client could take its text for harmless.
        """
        body = await service.read(request, ChatBody)
        service.require_model(body.model)
        if body.n not in (None, 1):
            raise invalid(f"n: found {body.n}, expected 1: the guard decodes greedily", "n")
        if body.logprobs:
            raise invalid("logprobs: not available; the field guard has the scores", "logprobs")
        query = Query(messages=body.messages, policy=body.policy, speed=body.speed)
        (judged,) = await service.judge(request, [query])
        if judged.result.unparsed:
            message = "the guard's answer has no clear verdict; treat it as harmful"
            raise Refusal(422, message, "unparsed", kind="guard_error")
        text = decided_text(judged.result, service.guard.prompt_tokenizer.format)
        if text is None and judged.result.flagged:
            message = (
                "a threshold blocks, but the guard's text says otherwise and cannot be changed; treat it as harmful"
            )
            raise Refusal(422, message, "undecided", kind="guard_error")
        text = judged.result.completion if text is None else text
        if not body.stream:
            return json_response(_completion(service, request, judged, text))
        usage = bool((body.stream_options or {}).get("include_usage"))
        chunks = _chunks(service, request, judged, text, usage)
        return StreamingResponse(chunks, media_type="text/event-stream", headers={"cache-control": "no-store"})

    @router.get("/v1/models", summary="List the model of this server")
    async def models() -> Response:
        """Return the one model that this server has."""
        model = {"id": service.name, "object": "model", "created": created, "owned_by": "guardreasoner"}
        return json_response({"object": "list", "data": [model]})

    return router


def _head(service: GuardService, request: Request, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request.state.request_id}",
        "object": kind,
        "created": int(time.time()),
        "model": service.name,
    }


def _usage(judged: Judged) -> dict[str, int]:
    prompt, answer = judged.prompt_tokens, judged.result.tokens
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _completion(service: GuardService, request: Request, judged: Judged, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        **_head(service, request, "chat.completion"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(judged),
        "guard": judged.result.as_json(),
    }


def _chunks(service: GuardService, request: Request, judged: Judged, text: str, usage: bool) -> Iterator[str]:
    """Yield the answer as the chunks of a stream; the text is in the first one."""
    head = _head(service, request, "chat.completion.chunk")
    delta = {"role": "assistant", "content": text}
    yield _data({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]})
    yield _data({**head, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]})
    if usage:
        yield _data({**head, "choices": [], "usage": _usage(judged)})
    yield "data: [DONE]\n\n"


def _data(content: Any) -> str:
    return f"data: {json.dumps(content, allow_nan=False)}\n\n"
