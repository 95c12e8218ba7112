"""``GET /``: a page to try the guard in a browser; ``GET /v1/guard``: the name, speeds and tasks that it shows."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from guardreasoner.evaluation.scoring.readings import flagging_labels
from guardreasoner.guard.service.judging import GuardService
from guardreasoner.guard.service.refusals import json_response

_PAGE = Path(__file__).with_name("page.html")


def page_routes(service: GuardService) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    text = _PAGE.read_text(encoding="utf-8")
    headers = page_headers(text)

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(text, headers=headers)

    @router.get("/v1/guard", summary="Tasks and speeds of the guard")
    async def about() -> Response:
        """Return the name of the guard, its speeds, its tasks, and whether it judges by a policy."""
        return json_response(_about(service))

    return router


def page_headers(text: str) -> dict[str, str]:
    """Return the headers of the page, which permit its own style and script, and requests to this server alone."""
    policy = [
        "default-src 'none'",
        *(f"{kind}-src {_hashes(text, tag)}" for kind, tag in (("script", "script"), ("style", "style"))),
        "connect-src 'self'",
        "img-src data:",
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    ]
    return {
        "content-security-policy": "; ".join(policy),
        "cache-control": "no-store",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }


def _hashes(text: str, tag: str) -> str:
    inline = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in inline)


def _about(service: GuardService) -> dict[str, Any]:
    guard = service.guard
    return {
        "model": service.name,
        "speeds": list(guard.speeds),
        "speed": guard.speed,
        "policy": any(task.uses_policy for task in guard.tasks),
        "tasks": [
            {
                "name": task.name,
                "question": task.question.strip(),
                "labels": list(task.labels),
                "flags": bool(task.flags),
                "flagging": list(flagging_labels(task)),
            }
            for task in guard.tasks
        ],
    }
