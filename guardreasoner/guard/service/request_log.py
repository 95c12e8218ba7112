"""One JSON line on standard error for each request, without texts of the conversation unless they are asked for."""

import json
import logging
import queue
import re
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardreasoner.guard.service.bodies import ClientGone
from guardreasoner.guard.service.failures import log_failure
from guardreasoner.guard.service.metrics import ServiceMetrics
from guardreasoner.guard.service.refusals import Refusal

log = logging.getLogger("guardreasoner.service")

_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_LINES = 10_000
"""Most lines that wait to be written."""

_LAST_LINES = 2.0
"""Seconds at the end for the lines that wait."""

_HUNG_UP = 499
"""Status in log and metrics of a request whose client has hung up; it is never sent."""


class JsonLines(logging.Formatter):
    """Formats log records as JSON objects.

    Args:
        texts: whether messages of exceptions are shown, which may quote a conversation.
    """

    def __init__(self, texts: bool) -> None:
        super().__init__()
        self.texts = texts

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if self.texts and (text := getattr(record, "text", None)) is not None:
            line["text"] = text
        return json.dumps(line, default=str)


class _Lines(QueueHandler):
    """Hands lines to the thread that writes them; if it cannot keep up, lines are left out and counted."""

    def __init__(self, waiting: "queue.Queue[logging.LogRecord]") -> None:
        super().__init__(waiting)
        self.waiting = waiting
        self.left_out = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put a line into the queue."""
        if self.left_out and self.waiting.empty():
            record.msg += f'\n{{"level": "warning", "event": "{self.left_out} lines left out"}}'
            self.left_out = 0
        try:
            self.waiting.put_nowait(record)
        except queue.Full:
            self.left_out += 1


@contextmanager
def logged_to_stderr(texts: bool) -> Iterator[None]:
    """Write the log of the service and of uvicorn to standard error as JSON lines, until the end of the block.

    A thread writes them: a reader that has stopped reading must not stop the server.
    """
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_LINES)
    lines = _Lines(waiting)
    lines.setFormatter(JsonLines(texts))
    QueueListener(waiting, logging.StreamHandler(sys.stderr)).start()
    for name in ("guardreasoner.service", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [lines], False
    log.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    try:
        yield
    finally:
        end = time.monotonic() + _LAST_LINES
        while waiting.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)


def add_to_log(request: Request, **fields: Any) -> None:
    """Add fields to the log line of a request."""
    request.state.fields.update(fields)


class RequestLog:
    """Gives each request an id, logs and counts it, and answers what no route has answered.

    Args:
        app: the application.
        metrics: counts the requests.
    """

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        fields: dict[str, Any] = {}
        scope.setdefault("state", {}).update(fields=fields, request_id=request_id)
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        start = time.perf_counter()
        try:
            await self.app(scope, receive, send_with_id)
        except ClientGone:
            status = _HUNG_UP
            fields["code"] = "client_gone"
        except Exception as error:
            fields["code"] = "server_error"
            log_failure("request failed", error, request_id=request_id)
            if status is None:
                refusal = Refusal(500, "the server failed", "server_error", kind="server_error")
                await refusal.response()(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "unknown")
            shown = {"request_id": request_id, "method": _method(scope), "route": route, "status": status or _HUNG_UP}
            self.metrics.saw_request(route, status or _HUNG_UP, fields.get("speed", ""), seconds, fields.get("code"))
            log.info("request", extra={"fields": {**shown, "ms": round(seconds * 1000, 1), **fields}})


def _method(scope: Scope) -> str:
    known = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "other"
