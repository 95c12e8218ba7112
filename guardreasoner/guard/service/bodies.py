"""Bodies of requests: read within the limits, parsed strictly, and checked against the schema of the route."""

import asyncio
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request

from guardreasoner.guard.results import GuardSpeed
from guardreasoner.guard.service.refusals import Refusal, invalid, invalid_body
from guardreasoner.records.jsonl import parse_json

Body = TypeVar("Body", bound=BaseModel)

_DISCARDED = 16
"""A body that is too large is read up to this many times the limit, so that its client sees the answer."""


class GuardBody(BaseModel):
    """A conversation to judge: ``prompt``, with or without ``response``, or ``messages``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    prompt: str | None = None
    response: str | None = None
    messages: list[dict[str, Any]] | None = None
    policy: str | None = None
    speed: GuardSpeed | None = None
    stream: bool = False


class ModerationBody(BaseModel):
    """OpenAI's request for moderation, with ``policy`` and ``speed`` beside it."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: str | list[str | dict[str, Any]]
    model: str | None = None
    policy: str | None = None
    speed: GuardSpeed | None = None


class ChatBody(BaseModel):
    """OpenAI's request for a chat completion, with ``policy`` and ``speed`` beside it.

    The guard decodes greedily: options such as ``temperature`` and ``max_tokens`` are accepted and have no effect.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    messages: list[dict[str, Any]]
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    n: int | None = None
    logprobs: bool | None = None
    policy: str | None = None
    speed: GuardSpeed | None = None


class LitellmBody(BaseModel):
    """The request of LiteLLM's generic guardrail API."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    structured_messages: list[dict[str, Any]] | None = None
    images: list[Any] | None = None
    tools: list[Any] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    request_data: dict[str, Any] | None = None
    litellm_call_id: str | None = None
    litellm_trace_id: str | None = None
    additional_provider_specific_params: dict[str, Any] | None = None


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the part of OpenAPI that describes a body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


async def read_body(request: Request, model: type[Body], most: int, seconds: float) -> Body:
    """Return the body of a request.

    Args:
        request: the request.
        model: schema of the body.
        most: most bytes.
        seconds: time that the client has to send it.

    Raises:
        Refusal: the body is not JSON in UTF-8, is too large or too slow, or does not fit the schema.
    """
    _require_json(request)
    try:
        content = await asyncio.wait_for(_content(request, most), seconds)
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {seconds:g} s", "slow_body", kind="timeout_error") from None
    try:
        value = parse_json(content.decode())
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not valid UTF-8: {error.reason} at byte {error.start}", code="not_utf8") from None
    except RecursionError:
        raise invalid("the body is nested too deeply", code="not_json") from None
    except ValueError as error:
        raise invalid(f"the body is not valid JSON: {error}", code="not_json") from None
    if not isinstance(value, dict):
        raise invalid(f"the body: found {_JSON_TYPES[type(value)]}, expected an object", code="invalid_type")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_body(error) from None


_JSON_TYPES = {
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _require_json(request: Request) -> None:
    """Refuse other types: a page of another site can send a form, but no JSON without permission."""
    kind, _, options = request.headers.get("content-type", "").partition(";")
    charset = options.strip().lower().replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8", "charset=utf8"):
        raise Refusal(415, "expected the Content-Type application/json, in UTF-8", "not_json_type")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "expected a body without Content-Encoding", "encoded_body")


async def _content(request: Request, most: int) -> bytes:
    declared = request.headers.get("content-length", "")
    is_large = declared.isascii() and declared.isdigit() and len(declared) < 20 and int(declared) > most
    if is_large and ("expect" in request.headers or int(declared) > _DISCARDED * most):
        raise _too_large(most)
    content, size = bytearray(), 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > _DISCARDED * most:
                break
            if size <= most:
                content += part
    except ClientDisconnect:
        raise ClientGone from None
    if size > most:
        raise _too_large(most)
    return bytes(content)


class ClientGone(Exception):
    """The client has hung up: nobody reads the answer."""


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is too large: at most {most:,} bytes are read", "body_too_large")
