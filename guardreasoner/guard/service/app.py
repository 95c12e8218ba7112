"""The web application: all routes, with errors in the form of OpenAI's API."""

from collections.abc import Collection

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from guardreasoner import __version__
from guardreasoner.guard.service.access import Access
from guardreasoner.guard.service.chat import chat_routes
from guardreasoner.guard.service.guard_route import guard_routes
from guardreasoner.guard.service.judging import GuardService
from guardreasoner.guard.service.litellm import litellm_routes
from guardreasoner.guard.service.moderations import moderation_routes
from guardreasoner.guard.service.page import page_routes
from guardreasoner.guard.service.refusals import Refusal, json_response
from guardreasoner.guard.service.request_log import RequestLog, add_to_log

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


def make_service_app(service: GuardService, key: str | None = None, hosts: Collection[str] = LOOPBACK_HOSTS) -> FastAPI:
    """Return the application.

    Args:
        service: the guard to ask.
        key: the key that clients must send; None: none.
        hosts: without a key, the host names that clients must use.
    """
    app = FastAPI(
        title="guardreasoner",
        version=__version__,
        description=f"Verdicts of the guard {service.name}.",
        docs_url=None,  # these pages load scripts from another server
        redoc_url=None,
        redirect_slashes=False,
        lifespan=service.running,
        middleware=[
            Middleware(RequestLog, metrics=service.metrics),
            Middleware(Access, key=key, hosts=hosts),
        ],
    )
    routers = (moderation_routes, guard_routes, chat_routes, litellm_routes, page_routes, _state_routes)
    for router in routers:
        app.include_router(router(service))
    app.add_exception_handler(Refusal, _refuse)
    app.add_exception_handler(HTTPException, _refuse_http)
    return app


def _state_routes(service: GuardService) -> APIRouter:
    router = APIRouter()

    @router.get("/health", summary="Whether the server runs")
    async def health() -> Response:
        return json_response({"status": "ok"})

    @router.get("/ready", summary="Whether the server can take a request now")
    async def ready() -> Response:
        if not service.batcher.is_running:
            return json_response({"status": "not running"}, 503)
        if len(service.batcher) >= service.limits.queue:
            return json_response({"status": "queue full"}, 503)
        return json_response({"status": "ready"})

    @router.get("/metrics", summary="Metrics for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return router


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    add_to_log(request, code=error.code)
    return error.response()


async def _refuse_http(request: Request, error: Exception) -> Response:
    """Answer a request for an unknown path, or with a method that the path does not have."""
    assert isinstance(error, HTTPException)
    codes = {404: ("not_found", "there is no such path"), 405: ("method_not_allowed", "the path has other methods")}
    code, message = codes.get(error.status_code, ("invalid_request", "the request is invalid"))
    refusal = Refusal(error.status_code, message, code, headers=error.headers)
    add_to_log(request, code=code)
    return refusal.response()
