"""What to do about a server's fault: ask again, and when; count the request as failed; or stop the run."""

import email.utils
import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import openai
from tenacity import RetryCallState
from tenacity.wait import wait_base

from guardreasoner.errors import InputError

_LONGEST_PAUSE = 60.0
"""Seconds, where the server does not say how long to wait."""

_LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a server that asks for more than this is not asked again for the same request."""

_MAY_PASS = (408, 409, 425, 429)
"""With 5xx, the states of a server that another try may find changed."""

_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was given up.

    Args:
        record_id: the request's.
        index: which of the request's outputs.
        reason: the last fault, in one line.
    """

    record_id: str
    index: int
    reason: str


class Unusable(Exception):
    """A reply that arrived and holds no output."""


class Addressed(Protocol):
    """Who was asked, for messages."""

    base_url: str
    model: str
    key_variable: str


class RetryWait(wait_base):
    """Seconds to wait before asking again: what the server said, else an exponential time with a random part.

    Args:
        first: longest first wait; it doubles up to a minute.
    """

    def __init__(self, first: float) -> None:
        self.first = first

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        told = asked_to_wait(error)
        if told is not None:
            # a little later than told, so that slots that were refused together do not come back together
            return told + random.uniform(0, min(0.1 * told, self.first))
        longest = min(_LONGEST_PAUSE, self.first * 2 ** min(retry_state.attempt_number - 1, 30))
        return random.uniform(longest / 2, longest)


def asked_to_wait(error: BaseException | None) -> float | None:
    """Return the seconds that a reply asks to wait (``retry-after-ms``, or Retry-After in seconds or as a date)."""
    if not isinstance(error, openai.APIStatusError):
        return None
    return seconds_of(error.response.headers)


def seconds_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that headers ask to wait; None when they do not, or in no way that can be read."""
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


def may_pass(error: BaseException) -> bool:
    """Return whether the same request may be answered at another time."""
    if isinstance(error, openai.APIStatusError):
        passing = error.status_code in _MAY_PASS or error.status_code >= 500
        return passing and not _out_of_credit(error) and (asked_to_wait(error) or 0) <= _LONGEST_RETRY_AFTER
    lost = (openai.APIConnectionError, TimeoutError)
    broken = (openai.APIResponseValidationError, json.JSONDecodeError, UnicodeDecodeError, Unusable)
    return isinstance(error, lost + broken)


def fatal(error: BaseException, asked: Addressed) -> InputError | None:
    """Return what ends the run: a fault that every other request would meet too; None for all others.

    A refusal of what one request holds (400, 403, 413, 422) is not one: hosted models refuse single conversations by
    their filters and their length, and a wrong parameter shows when requests fail in a row.
    """
    if not isinstance(error, openai.APIStatusError):
        return None
    said = f"{asked.base_url}: {reason(error)}"
    if error.status_code == 401:
        return InputError(said, f"is the key in {asked.key_variable} this server's?")
    if error.status_code == 404:
        return InputError(said, f"is {asked.model!r} (model) served there, and does base_url end in /v1?")
    if error.status_code == 402 or _out_of_credit(error):
        return InputError(said, "the account has no credit left; what was answered is kept")
    return None


def reason(error: BaseException) -> str:
    """Return an error in one line."""
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        # OpenAI's form, and FastAPI's
        text = body.get("message") or body.get("detail") or error.message
        return f"{error.status_code} {' '.join(str(text).split())[:300]}"
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return "no reply in time"
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        return " ".join(f"{type(cause).__name__} {cause}".split())[:300]
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | openai.APIResponseValidationError):
        return "a reply that is not JSON"
    return " ".join((str(error) or type(error).__name__).split())[:300]


def _out_of_credit(error: openai.APIStatusError) -> bool:
    return error.code in _NO_CREDIT or error.type in _NO_CREDIT
