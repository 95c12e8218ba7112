"""``POST /v1/moderations``: OpenAI's moderation, with the tasks of the guard as categories."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guardreasoner.evaluation.scoring.readings import flagging_labels
from guardreasoner.guard.query import Query
from guardreasoner.guard.results import GuardResult, TaskResult, task_flags
from guardreasoner.guard.service.bodies import ModerationBody, json_schema
from guardreasoner.guard.service.judging import GuardService
from guardreasoner.guard.service.refusals import invalid, json_response
from guardreasoner.tasks import Task

OPENAI_MODELS = (
    *("omni-moderation-latest", "omni-moderation-2024-09-26"),
    *("text-moderation-latest", "text-moderation-stable", "text-moderation-007"),
)
"""Names that clients of OpenAI send by default; they get this guard too."""


def moderation_routes(service: GuardService) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post("/v1/moderations", openapi_extra=json_schema(ModerationBody), summary="Judge texts of a user")
    async def moderations(request: Request) -> Response:
        """Return one result for each text; a list of content parts is one text.

        Categories are named ``task/label``, such as ``request/harmful``. Tasks that do not apply to a text, such as
        those about a response, have no category.
        """
        body = await service.read(request, ModerationBody)
        service.require_model(body.model, *OPENAI_MODELS)
        texts = _texts(body.input)
        queries = [Query(text, policy=body.policy, speed=body.speed) for text in texts]
        judged = await service.judge(request, queries, "input")
        results = [moderation(one.result, service.guard.tasks) for one in judged]
        return json_response({"id": f"modr-{request.state.request_id}", "model": service.name, "results": results})

    return router


def _texts(given: str | list[str | dict[str, Any]]) -> list[str]:
    """Return the texts to judge: each string of a list is one, and all parts together are one."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise invalid("input: found an empty list, expected texts", "input")
    texts = [one for one in given if isinstance(one, str)]
    if len(texts) == len(given):
        return texts
    parts = []
    for number, part in enumerate(given):
        if isinstance(part, str):
            raise invalid(f"input[{number}]: found a string among content parts", "input")
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            parts.append(part["text"])
        else:
            raise invalid(f"input[{number}]: expected a part with type text; images are not judged", "input")
    return ["\n".join(parts)]


def moderation(result: GuardResult, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return a result in the form of OpenAI's moderation API, with a category for each label that may flag."""
    categories: dict[str, bool] = {}
    scores: dict[str, float] = {}
    for task in tasks:
        answer = result.tasks[task.name]
        if task.flags and (answer.verdict is not None or answer.band is not None):
            for label, (is_flagged, score) in _by_label(answer, task).items():
                categories[f"{task.name}/{label}"] = is_flagged
                scores[f"{task.name}/{label}"] = score
    return {
        "flagged": result.flagged,
        "categories": categories,
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in categories},
        "unparsed": result.unparsed,
        "speed": result.speed,
    }


def _by_label(answer: TaskResult, task: Task) -> dict[str, tuple[bool, float]]:
    """Return, for each label that may flag, whether it flags, and its score.

    A label without a score has 1 or 0 by the verdict. Without a verdict, all flag with the score 1. If the threshold
    flags a text whose verdict is another one, the most probable of these labels flags.
    """
    labels = flagging_labels(task)
    if answer.verdict is None:
        return dict.fromkeys(labels, (True, 1.0))
    scores = {label: answer.scores.get(label, float(label == answer.verdict)) for label in labels}
    if not task_flags(answer, task):
        return {label: (False, score) for label, score in scores.items()}
    flagged = answer.verdict if answer.verdict in labels else max(labels, key=scores.__getitem__)
    return {label: (label == flagged, score) for label, score in scores.items()}
