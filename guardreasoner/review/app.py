"""The review page as a web application for the one person who started it on this machine.

It answers only to the host names of this machine (against DNS rebinding), accepts ratings only from its own page (by
origin, and by a token that is new at every start), and lets the browser load nothing from elsewhere.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from guardreasoner.review.items import ReviewItem
from guardreasoner.review.pages import PageState, query_string, review_page
from guardreasoner.review.ratings import RUBRIC
from guardreasoner.review.session import FLAGS, ItemFilter, Session
from guardreasoner.workflow.visible_text import visible_text

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STATIC = Path(__file__).parent / "static"
_MEDIA_TYPES = {"review.css": "text/css", "review.js": "text/javascript"}
_MAX_FORM_SIZE = 1 << 18  # bytes
_MARKS = {"yes": True, "no": False}


def make_app(session: Session) -> "Starlette":
    """Return the application.

    Args:
        session: session to show and write to; requests are handled one at a time.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    handlers = _Handlers(session)
    return Starlette(
        routes=[
            Route("/", handlers.show, methods=["GET"]),
            Route("/static/{name}", _static, methods=["GET"]),
            Route("/rate", handlers.rate, methods=["POST"]),
            Route("/skip", handlers.skip, methods=["POST"]),
            Route("/undo", handlers.undo, methods=["POST"]),
        ],
        middleware=[
            Middleware(_SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False),
        ],
    )


class _Handlers:
    """Request handlers. ``message`` and ``saved_key`` pass the result of a form to the page it redirects to."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self.message = self.saved_key = ""

    async def show(self, request: "Request") -> "Response":
        from starlette.responses import HTMLResponse

        item_filter = self._filter(request)
        at = request.query_params.get("at")
        item = self._first(item_filter) if at is None else self._item(at)
        if at is not None and item is None:
            total = len(self.session.review_set.items)
            return _refuse(404, f"There is no record {at[:40]}: expected a number from 1 to {total:,}.")
        state = PageState(self.token, request.state.nonce, self.message, self.saved_key)
        self.message = self.saved_key = ""
        return HTMLResponse(review_page(self.session, item_filter, item, state))

    async def rate(self, request: "Request") -> "Response":
        form = await self._form(request)
        item = self._item(request.query_params.get("at", ""))
        if not isinstance(form, Mapping):
            return form
        if item is None:
            return _refuse(404, "There is no such record.")
        try:
            marks = {
                answer.slot: {question.key: _mark(form, f"{answer.slot}.{question.key}") for question in RUBRIC}
                for answer in item.answers
            }
            note = form.get("note", "").replace("\r\n", "\n").strip()
            labels = {task.name: form.get(f"label.{task.name}") or None for task in item.tasks}
            self.session.rate(item, marks, form.get("better") or None, note, labels)
        except ValueError as error:
            return _refuse(400, f"Not saved: {error}.")
        except OSError as error:
            return self._refuse_unwritten(error)
        self.saved_key = item.key
        return self._next(request, item, f"Record {item.number} is saved.")

    async def skip(self, request: "Request") -> "Response":
        form = await self._form(request)
        item = self._item(request.query_params.get("at", ""))
        if not isinstance(form, Mapping):
            return form
        if item is None:
            return _refuse(404, "There is no such record.")
        try:
            self.session.skip(item)
        except OSError as error:
            return self._refuse_unwritten(error)
        self.saved_key = item.key
        return self._next(request, item, f"Record {item.number} is skipped.")

    async def undo(self, request: "Request") -> "Response":
        form = await self._form(request)
        if not isinstance(form, Mapping):
            return form
        try:
            item = self.session.undo()
        except OSError as error:
            return self._refuse_unwritten(error)
        self.message = f"Undone: record {item.number}." if item else "There is nothing to undo."
        return _redirect(self._filter(request), item or self._item(request.query_params.get("at", "")))

    def _item(self, number: str) -> ReviewItem | None:
        items = self.session.review_set.items
        is_valid = number.isascii() and number.isdigit() and len(number) < 10 and 1 <= int(number) <= len(items)
        return items[int(number) - 1] if is_valid else None

    def _filter(self, request: "Request") -> ItemFilter:
        parameters = request.query_params
        name = parameters.get("benchmark", "")
        sources = {visible_text(item.record.source): item.record.source for item in self.session.review_set.items}
        return ItemFilter(sources.get(name, name), **{flag: parameters.get(flag) == "1" for flag in FLAGS})

    def _first(self, item_filter: ItemFilter) -> ReviewItem | None:
        """Return the first unrated item that a filter selects; if all are rated, the first one."""
        matching = self.session.matching(item_filter)
        unrated = (item for item in matching if self.session.latest(item) is None)
        return next(unrated, next(iter(matching), None))

    def _next(self, request: "Request", item: ReviewItem, message: str) -> "Response":
        """Redirect to the next item; after the last one, to the first unrated item; if there is none, to the same."""
        item_filter = self._filter(request)
        matching = self.session.matching(item_filter)
        following = next((match for match in matching if match.number > item.number), None)
        target = following or next((match for match in matching if self.session.latest(match) is None), None)
        self.message = message
        if target is None:
            self.message += " All matching records are rated or skipped."
        elif following is None:
            self.message += " That was the last record; this one is still unrated."
        return _redirect(item_filter, target or (None if item_filter.unrated else item))

    def _refuse_unwritten(self, error: OSError) -> "Response":
        path = self.session.file.path
        return _refuse(500, f"Not saved: {path}: {error.strerror}. Go back; your entries are still there.")

    async def _form(self, request: "Request") -> "Mapping[str, str] | Response":
        """Return the fields of a form that this page sent, or the refusal of any other request."""
        headers = request.headers
        if headers.get("origin") != f"http://{headers['host']}":
            return _refuse(403, "Refused: this request is not from the review page.")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MAX_FORM_SIZE:
                return _refuse(413, "Not saved: too long.")
        fields = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        if not secrets.compare_digest(fields.get("token", "").encode(), self.token.encode()):
            return _refuse(403, "Refused: the server was restarted since this page was loaded; reload it.")
        return fields


class _SecurityHeaders:
    """Adds security headers to every response; the nonce allows the page's inline style."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            return
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce
        policy = (
            f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src data:; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        headers = {
            "content-security-policy": policy,
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "same-origin",  # with "no-referrer", browsers send forms with the origin "null"
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        }

        async def send_with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                encoded = ((name.encode(), value.encode()) for name, value in headers.items())
                message["headers"] = [*message["headers"], *encoded]
            await send(message)

        await self.app(scope, receive, send_with_headers)


async def _static(request: "Request") -> "Response":
    from starlette.responses import Response

    name = request.path_params["name"]
    if name not in _MEDIA_TYPES:
        return _refuse(404, "There is no such file.")
    return Response((_STATIC / name).read_bytes(), media_type=_MEDIA_TYPES[name])


def _mark(form: Mapping[str, str], name: str) -> bool | None:
    value = form.get(name, "")
    if value not in ("", *_MARKS):
        raise ValueError(f"{name}: expected yes or no")
    return _MARKS.get(value)


def _redirect(item_filter: ItemFilter, item: ReviewItem | None) -> "Response":
    from starlette.responses import RedirectResponse

    return RedirectResponse(f"/?{query_string(item_filter, item)}", status_code=303)


def _refuse(status: int, reason: str) -> "Response":
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(reason.encode(errors="replace"), status_code=status)
