"""Errors that a request is answered with, in the form of OpenAI's API. None of them can be read as a verdict."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from guardreasoner.errors import InputError

_UNION = ("str", "list[union[str,dict[str,any]]]", "dict[str,any]")
"""Parts of a place with which pydantic names the members of a union."""

_ARGUMENTS = ("prompt", "response", "messages", "policy", "speed")


class Refusal(Exception):
    """A request that gets no verdict.

    Args:
        status: HTTP status.
        message: what is wrong and what was expected.
        code: short name of the error, for programs.
        kind: class of the error.
        param: the field of the request that is wrong.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.kind = kind
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """Return the answer."""
        return json_response(self.body(), self.status, self.headers)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON; characters outside ASCII are escaped, so that any text can be sent."""
    text = json.dumps(content, allow_nan=False)
    return Response(text, status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> Refusal:
    """Return the refusal of a wrong value."""
    return Refusal(400, message, code, param=param)


def invalid_query(error: InputError, where: str = "") -> Refusal:
    """Return the refusal of a query that the guard cannot judge.

    Args:
        error: what :class:`guardreasoner.Guard` says about it; it may start with the name of the argument.
        where: the query's place in the request, if it holds several.
    """
    name = str(error).partition(":")[0]
    param = where or (name if name in _ARGUMENTS else None)
    return invalid(f"{where}: {error}" if where else str(error), param)


def invalid_body(error: ValidationError) -> Refusal:
    """Return the refusal of a body with a wrong field: the innermost fault, without the value that was sent."""
    fault = max(error.errors(include_url=False, include_input=False), key=lambda fault: len(fault["loc"]))
    place = _place(fault["loc"])
    code = {"missing": "missing_field", "extra_forbidden": "unknown_field"}.get(fault["type"], "invalid_type")
    return invalid(f"{place or 'the body'}: {fault['msg']}", place or None, code)


def overloaded(waiting: int, seconds: int) -> Refusal:
    """Return the refusal of a request that the queue has no place for.

    Args:
        waiting: number of conversations in the queue.
        seconds: estimated time until there is a place.
    """
    return Refusal(
        429,
        f"the queue is full: {waiting:,} conversations wait; try again in {seconds} s",
        "queue_full",
        kind="rate_limit_error",
        headers={"retry-after": str(seconds)},
    )


def timed_out(seconds: float) -> Refusal:
    """Return the refusal of a request that was not judged in time."""
    return Refusal(504, f"not judged within {seconds:g} s", "timeout", kind="timeout_error")


def engine_failed() -> Refusal:
    """Return the refusal of a request whose engine failed; what happened is in the log of the server."""
    return Refusal(500, "the guard failed to judge the request", "engine_error", kind="server_error")


def _place(location: Sequence[int | str]) -> str:
    """Return a place as ``messages[0].role``, without characters that a client chose and nobody can read."""
    text = ""
    for part in location:
        if part in _UNION:
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".").encode("ascii", "backslashreplace").decode()[:100]
