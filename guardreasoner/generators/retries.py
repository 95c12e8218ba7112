"""Errors of a server: which of them are retried, after how long, and their description in one line."""

import email.utils
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

import openai
from tenacity import RetryCallState
from tenacity.wait import wait_base

from guardreasoner.workflow.redaction import redacted

_MAX_BACKOFF = 60.0
"""Maximum seconds between two attempts if the server does not say how long to wait."""

_MAX_RETRY_AFTER = 3600.0
"""A request is not retried if the server asks to wait for more than these seconds."""

_TRANSIENT_STATUS = (408, 409, 425, 429)
"""Status codes, besides 5xx, that a later attempt may not meet."""

_MAX_DESCRIPTION = 300
"""Maximum characters of the description of an error."""

_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


@dataclass(frozen=True, slots=True)
class Failure:
    """An output that could not be obtained.

    Args:
        record_id: record id of the request.
        index: index of the output.
        reason: the last error, in one line.
    """

    record_id: str
    index: int
    reason: str


class UnusableReply(Exception):
    """A reply that holds no output."""


class ErrorReply(UnusableReply):
    """A reply whose status is that of a success and whose body is an error.

    Args:
        message: the provider's message, in one line.
        status: status code in the body; None if it has none.
        code: error code in the body, such as "insufficient_quota"; None if it has none.
        type: type of the error in the body; None if it has none.
    """

    def __init__(
        self, message: str, status: int | None = None, code: str | None = None, type: str | None = None
    ) -> None:
        super().__init__(f"{status} {message}" if status else message)
        self.status_code = status
        self.code = code
        self.type = type


class RetryWait(wait_base):
    """Seconds before the next attempt: what the server asks for, otherwise exponential backoff with jitter.

    Args:
        first: maximum seconds before the second attempt; it doubles with each attempt, up to a minute.
    """

    def __init__(self, first: float) -> None:
        self.first = first

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        retry_after = requested_wait(error)
        if retry_after is not None:
            # jitter, so that requests that were rejected together are not sent again together
            return retry_after + random.uniform(0, min(0.1 * retry_after, self.first))
        backoff = min(_MAX_BACKOFF, self.first * 2 ** min(retry_state.attempt_number - 1, 30))
        return random.uniform(backoff / 2, backoff)


def requested_wait(error: BaseException | None) -> float | None:
    """Return the seconds that the server asks to wait before a retry; None if it does not ask."""
    if not isinstance(error, openai.APIStatusError):
        return None
    return retry_after_seconds(error.response.headers)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in ``retry-after-ms``, or in Retry-After as seconds or date; None if absent or unreadable."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(error, openai.APIStatusError | ErrorReply):
        status = error.status_code
        transient = status is None or not 400 <= status < 500 or status in _TRANSIENT_STATUS
        return transient and not is_out_of_credit(error) and (requested_wait(error) or 0) <= _MAX_RETRY_AFTER
    lost = (openai.APIConnectionError, TimeoutError)
    return isinstance(error, (*lost, UnusableReply))


def is_out_of_credit(error: openai.APIStatusError | ErrorReply) -> bool:
    """Return whether the account has no credit left."""
    return error.code in _NO_CREDIT or error.type in _NO_CREDIT


def error_line(error: BaseException) -> str:
    """Describe an error in one line, without secrets that the server repeats."""
    return redacted(_describe(error))[:_MAX_DESCRIPTION]


def _describe(error: BaseException) -> str:
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        # OpenAI uses "message", FastAPI "detail"
        text = body.get("message") or body.get("detail") or error.message
        return f"{error.status_code} {' '.join(str(text).split())}"
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return "no reply within the timeout"
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        return " ".join(f"{type(cause).__name__} {cause}".split())
    return " ".join((str(error) or type(error).__name__).split())
