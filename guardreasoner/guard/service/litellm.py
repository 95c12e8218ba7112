"""``POST /beta/litellm_basic_guardrail_api``: the generic guardrail API of LiteLLM's proxy.

Source: https://docs.litellm.ai/docs/adding_provider/generic_guardrail_api
"""

from typing import Any, get_args

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guardreasoner.evaluation.scoring.readings import flagging_labels
from guardreasoner.guard.query import Query
from guardreasoner.guard.results import GuardResult, GuardSpeed, task_flags
from guardreasoner.guard.service.bodies import LitellmBody, json_schema
from guardreasoner.guard.service.judging import GuardService
from guardreasoner.guard.service.refusals import invalid, json_response
from guardreasoner.tasks import Task

_UNKNOWN_USER = {"role": "user", "content": "(not known)"}
"""Stands for the user's message where LiteLLM sends a response alone, or an image that is not judged."""

_IMAGES = ("image_url", "input_image", "image")
"""Types of the parts of a message that are images."""

_OPTIONS = {"policy": str, "speed": str, "ignore_images": bool}
"""Options that a proxy's config may give in ``additional_provider_specific_params``."""


def litellm_routes(service: GuardService) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post(
        "/beta/litellm_basic_guardrail_api",
        openapi_extra=json_schema(LitellmBody),
        summary="Judge a request or a response of LiteLLM's proxy",
    )
    async def guardrail(request: Request) -> Response:
        """Return the action ``NONE``, or ``BLOCKED`` with its reason.

        A request with ``structured_messages`` is judged as that conversation, else each text as a message of the user,
        and all calls of tools as an answer to the texts.
        The texts of a response, each with all its calls of tools, are judged as answers to ``structured_messages``;
        without those, only tasks that do not judge the user's message decide. Images cannot be judged: they are blocked
        unless ``ignore_images`` is given.
        """
        body = await service.read(request, LitellmBody)
        options = _options(body)
        messages = body.structured_messages or []
        textual = _without_images(messages)
        has_images = bool(body.images) or textual != messages
        if has_images and not options.get("ignore_images", False):
            return _blocked("images cannot be judged")
        from_user = any(message.get("role") == "user" for message in textual)
        if textual != messages:
            body = body.model_copy(
                update={"structured_messages": textual if from_user else _with_unknown_user(textual)}
            )
        queries = _queries(body, options.get("policy"), options.get("speed"))
        if not queries:
            if has_images:
                return json_response({"action": "NONE"})
            raise invalid("texts: found no text to judge", "texts")
        of_texts = body.input_type == "request" and not body.structured_messages and bool(_texts(body))
        has_prompt = from_user or of_texts
        tasks = [task for task in service.guard.tasks if task.flags and (has_prompt or task.judges != "last_user")]
        of_user = all(task.judges == "last_user" for task in tasks)
        if of_user and not (has_prompt and body.input_type == "request"):
            raise invalid("input_type: this guard judges a message of the user alone", "input_type")
        judged = await service.judge(request, queries, "texts")
        for one in judged:
            if reason := blocked_reason(one.result, tasks):
                return _blocked(reason)
        return json_response({"action": "NONE"})

    return router


def _without_images(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages without their images; those of images alone are left out."""
    kept = []
    for message in messages:
        parts = message.get("content")
        if isinstance(parts, list) and parts:
            texts = [part for part in parts if not (isinstance(part, dict) and part.get("type") in _IMAGES)]
            if not texts and not message.get("tool_calls"):
                continue
            message = {**message, "content": texts or None}
        kept.append(message)
    return kept


def _with_unknown_user(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages with one of the user before the assistant's first one; none if the assistant has none."""
    place = next((n for n, message in enumerate(messages) if message.get("role") == "assistant"), None)
    return [] if place is None else [*messages[:place], dict(_UNKNOWN_USER), *messages[place:]]


def _options(body: LitellmBody) -> dict[str, Any]:
    options = {}
    for name, kind in _OPTIONS.items():
        value = (body.additional_provider_specific_params or {}).get(name)
        if value is not None and not isinstance(value, kind):
            raise invalid(f"{name}: expected {kind.__name__}", f"additional_provider_specific_params.{name}")
        options[name] = value
    if options["speed"] is not None and options["speed"] not in get_args(GuardSpeed):
        place = "additional_provider_specific_params.speed"
        raise invalid(f"speed: expected {', '.join(get_args(GuardSpeed))}", place)
    return options


def _queries(body: LitellmBody, policy: str | None, speed: GuardSpeed | None) -> list[Query]:
    texts = _texts(body)
    messages = body.structured_messages or []
    calls = body.tool_calls or None
    unknown = [_UNKNOWN_USER]
    if body.input_type == "response":
        answers: list[dict[str, Any]] = [{"role": "assistant", "content": text, "tool_calls": calls} for text in texts]
        if calls and not answers:
            answers = [{"role": "assistant", "content": None, "tool_calls": calls}]
        return [Query(messages=[*(messages or unknown), answer], policy=policy, speed=speed) for answer in answers]
    if messages:
        return [Query(messages=messages, policy=policy, speed=speed)]
    queries = [Query(text, policy=policy, speed=speed) for text in texts]
    if calls:
        users = [{"role": "user", "content": text} for text in texts] or unknown
        answer = {"role": "assistant", "content": None, "tool_calls": calls}
        queries.append(Query(messages=[*users, answer], policy=policy, speed=speed))
    return queries


def _texts(body: LitellmBody) -> list[str]:
    return [text for text in body.texts or [] if text.strip()]


def blocked_reason(result: GuardResult, tasks: list[Task]) -> str | None:
    """Return why a conversation is blocked; None if it is not."""
    for task in tasks:
        answer = result.tasks[task.name]
        if task_flags(answer, task):
            if answer.verdict is None:
                return f"{task.name}: the guard's answer has no clear verdict"
            score = "" if answer.score is None else f" (score {answer.score:.3f})"
            labels = flagging_labels(task)
            return f"{task.name}: {answer.verdict if answer.verdict in labels else labels[0]}{score}"
    return None


def _blocked(reason: str) -> Response:
    return json_response({"action": "BLOCKED", "blocked_reason": reason})
