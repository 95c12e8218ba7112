"""The review page as a web application, for the one person who started it on this machine.

It answers no other host name (so that no other site's name can be pointed at it), takes a rating only from its own page
(its origin, and a token that is new at every start), and lets a browser load nothing but what it serves itself.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from guardreasoner.review.cases import ReviewItem
from guardreasoner.review.pages import page, query, shown
from guardreasoner.review.ratings import RUBRIC
from guardreasoner.review.session import FLAGS, Filter, Session

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STATIC = Path(__file__).parent / "static"
_FILES = {"review.css": "text/css", "review.js": "text/javascript"}
_LARGEST_FORM = 1 << 18  # bytes
_SAYS = {"yes": True, "no": False}


def make_app(session: Session) -> "Starlette":
    """Return the application.

    Args:
        session: what it shows and writes to. Its requests are answered one after the other.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    pages = _Pages(session)
    return Starlette(
        routes=[
            Route("/", pages.show, methods=["GET"]),
            Route("/static/{name}", _static, methods=["GET"]),
            *(Route(f"/{do.__name__}", do, methods=["POST"]) for do in (pages.rate, pages.skip, pages.undo)),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False),
        ],
    )


class _Pages:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self.notice = self.done = ""

    async def show(self, request: "Request") -> "Response":
        from starlette.responses import HTMLResponse

        wanted = self._filter(request)
        at = request.query_params.get("at")
        case = self._first(wanted) if at is None else self._case(at)
        if at is not None and case is None:
            return _refused(404, f"There is no record {at[:40]}; they go from 1 to {len(self.session.cases.all):,}.")
        notice, done = self.notice, self.done
        self.notice = self.done = ""
        return HTMLResponse(page(self.session, wanted, case, self.token, request.state.nonce, notice, done))

    async def rate(self, request: "Request") -> "Response":
        form = await self._form(request)
        case = self._case(request.query_params.get("at", ""))
        if not isinstance(form, Mapping):
            return form
        if case is None:
            return _refused(404, "There is no such record.")
        try:
            says = {one.slot: {i.key: _answer(form, f"{one.slot}.{i.key}") for i in RUBRIC} for one in case.answers}
            note = form.get("note", "").replace("\r\n", "\n").strip()
            self.session.rate(case, says, form.get("better") or None, note)
        except ValueError as error:
            return _refused(400, f"Not saved: {error}.")
        except OSError as error:
            return self._not_written(error)
        self.done = case.key
        return self._go_on(request, case, f"Record {case.number} is saved.")

    async def skip(self, request: "Request") -> "Response":
        form = await self._form(request)
        case = self._case(request.query_params.get("at", ""))
        if not isinstance(form, Mapping):
            return form
        if case is None:
            return _refused(404, "There is no such record.")
        try:
            self.session.skip(case)
        except OSError as error:
            return self._not_written(error)
        self.done = case.key
        return self._go_on(request, case, f"Record {case.number} is skipped.")

    async def undo(self, request: "Request") -> "Response":
        form = await self._form(request)
        if not isinstance(form, Mapping):
            return form
        try:
            case = self.session.undo()
        except OSError as error:
            return self._not_written(error)
        self.notice = f"Undone: record {case.number}." if case else "There is nothing to undo."
        return _see(self._filter(request), case or self._case(request.query_params.get("at", "")))

    def _case(self, number: str) -> ReviewItem | None:
        cases = self.session.cases.all
        is_one = number.isascii() and number.isdigit() and len(number) < 10 and 1 <= int(number) <= len(cases)
        return cases[int(number) - 1] if is_one else None

    def _filter(self, request: "Request") -> Filter:
        asked = request.query_params
        named = asked.get("benchmark", "")
        sources = {shown(case.record.source): case.record.source for case in self.session.cases.all}
        return Filter(sources.get(named, named), **{flag: asked.get(flag) == "1" for flag in FLAGS})

    def _first(self, wanted: Filter) -> ReviewItem | None:
        """Return the first case that a filter lets through and that is not rated yet; else the first of all it does."""
        found = self.session.matching(wanted)
        return next((case for case in found if self.session.latest(case) is None), next(iter(found), None))

    def _go_on(self, request: "Request", case: ReviewItem, said: str) -> "Response":
        """Show the next case; at the end the first that was left unrated; else stay."""
        wanted = self._filter(request)
        found = self.session.matching(wanted)
        after = next((one for one in found if one.number > case.number), None)
        left = after or next((one for one in found if self.session.latest(one) is None), None)
        self.notice = said
        if left is None:
            self.notice += " All of these are done."
        elif after is None:
            self.notice += " That was the last one; this one was left out."
        return _see(wanted, left or (None if wanted.unrated else case))

    def _not_written(self, error: OSError) -> "Response":
        where = self.session.file.path
        return _refused(500, f"Not saved: {where}: {error.strerror}. Go back; what was filled in is kept.")

    async def _form(self, request: "Request") -> "Mapping[str, str] | Response":
        """Return the fields that a page of ours sent; what to answer where it was not one of ours."""
        headers = request.headers
        if headers.get("origin") != f"http://{headers['host']}":
            return _refused(403, "Refused: this request is not from the review page.")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST_FORM:
                return _refused(413, "Not saved: too long.")
        fields = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        if not secrets.compare_digest(fields.get("token", "").encode(), self.token.encode()):
            return _refused(403, "Refused: this page is from an earlier start; load it again.")
        return fields


class _Headers:
    """Adds to every answer what a browser may do with it; a page's style is known by its nonce."""

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
        added = {
            "content-security-policy": policy,
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "same-origin",  # without any, browsers send no origin with forms
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        }

        async def send_more(message: "Message") -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in added.items())]
            await send(message)

        await self.app(scope, receive, send_more)


async def _static(request: "Request") -> "Response":
    from starlette.responses import Response

    name = request.path_params["name"]
    if name not in _FILES:
        return _refused(404, "There is no such file.")
    return Response((_STATIC / name).read_bytes(), media_type=_FILES[name])


def _answer(form: Mapping[str, str], name: str) -> bool | None:
    word = form.get(name, "")
    if word not in ("", *_SAYS):
        raise ValueError(f"{name}: neither yes nor no")
    return _SAYS.get(word)


def _see(wanted: Filter, case: ReviewItem | None) -> "Response":
    from starlette.responses import RedirectResponse

    return RedirectResponse(f"/?{query(wanted, case)}", status_code=303)


def _refused(status: int, why: str) -> "Response":
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(why.encode(errors="replace"), status_code=status)
