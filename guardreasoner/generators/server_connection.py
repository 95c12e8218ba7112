"""The connection to an OpenAI-compatible server: an event loop in a thread, attempts, rate limit and timeouts."""

import asyncio
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import openai
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from guardreasoner.errors import InputError
from guardreasoner.generators.retries import ErrorReply, RetryWait, error_line, is_out_of_credit, is_transient
from guardreasoner.generators.server_reply import ServerReply, read_reply
from guardreasoner.workflow import stop_signals

_LOOK_UP = 0.5
"""Seconds after which the wait for replies is interrupted, to see whether a signal has arrived."""

_MAX_NAME, _MAX_NAMES = 100, 10

log = logging.getLogger("guardreasoner")


@dataclass(frozen=True, slots=True)
class Server:
    """Address of a server and how requests are sent to it; see :class:`guardreasoner.ServerGenerator`.

    Args:
        base_url: address, up to and including ``/v1``.
        model: name of the model.
        key_variable: environment variable that holds the API key.
        requests_per_minute: maximum number of requests started per minute; None is no limit.
        timeout: maximum seconds from sending a request to the end of its reply.
        attempts: number of attempts before a request counts as failed.
        pause: maximum seconds before the second attempt.
        reported_models: names under which the server may report the model; None accepts every name.

    Raises:
        InputError: raised if a number is out of range.
    """

    base_url: str
    model: str
    key_variable: str
    requests_per_minute: float | None
    timeout: float
    attempts: int
    pause: float
    reported_models: list[str] | None

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError(f"generator: attempts must be at least 1, got {self.attempts}")
        for name, value in {"timeout": self.timeout, "requests_per_minute": self.requests_per_minute}.items():
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"generator: {name} must be a number above 0, got {value}")
        if not 0 <= self.pause < float("inf"):
            raise InputError(f"generator: pause must be 0 or above, got {self.pause}")


class ServerConnection:
    """Runs coroutines that send requests, in an event loop of its own thread. It does not limit the number in flight.

    Args:
        server: the server.
        key: API key.
    """

    def __init__(self, server: Server, key: str) -> None:
        self.server = server
        self._model_names = {server.model}
        self._finished: queue.SimpleQueue[Future[list[Any]]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server-requests", daemon=True)
        self._thread.start()
        self._client = openai.AsyncOpenAI(api_key=key, base_url=server.base_url, timeout=server.timeout, max_retries=0)
        rate = server.requests_per_minute
        # a burst of one second's worth, so that no minute holds much more than the limit
        self._limiter = None if rate is None else AsyncLimiter(max(1.0, rate / 60), 60 * max(1.0, rate / 60) / rate)

    def check_reachable(self) -> None:
        """Raise ``InputError`` if nothing listens, so that a wrong address is reported before any retries."""

        async def list_models() -> None:
            await self._client.with_options(timeout=10).models.list()

        try:
            asyncio.run_coroutine_threadsafe(list_models(), self._loop).result()
        except openai.APITimeoutError:
            pass  # the server is busy or starting
        except openai.APIConnectionError as error:
            raise InputError(
                f"{self.server.base_url}: cannot be reached: {error_line(error)}",
                "start the server, or set base_url (OPENAI_BASE_URL) to its address, ending in /v1",
            ) from None
        except Exception as error:
            # other errors are ignored: not every server lists its models, or does so in OpenAI's format
            if isinstance(error, openai.AuthenticationError) and (fatal := _fatal_error(error, self.server)):
                raise fatal from None

    def start(self, answer: Coroutine[Any, Any, list[Any]]) -> None:
        """Start a coroutine that sends a request and returns its replies."""
        future = asyncio.run_coroutine_threadsafe(answer, self._loop)
        future.add_done_callback(self._finished.put)

    def receive(self) -> list[Any]:
        """Wait until a request has finished; return its replies.

        Raises:
            Stopped: a signal arrived.
        """
        while True:
            with suppress(queue.Empty):
                return self._finished.get(timeout=_LOOK_UP).result()
            stop_signals.check()

    def close(self) -> None:
        """Cancel what is in flight and end the thread."""

        async def stop() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._client.close()

        try:
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(stop(), self._loop).result(timeout=5)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5)

    async def attempt(self, send: Callable[[], Awaitable[None]]) -> str | None:
        """Call ``send`` until it succeeds or the attempts are used up.

        Returns:
            None, or the last error in one line.

        Raises:
            InputError: every other request would fail in the same way.
        """
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(self.server.attempts),
                wait=RetryWait(self.server.pause),
                retry=retry_if_exception(is_transient),
                reraise=True,
            ):
                with attempt:
                    await send()
        except InputError:
            raise
        except Exception as error:
            if fatal := _fatal_error(error, self.server):
                raise fatal from None
            return error_line(error)
        return None

    async def post(self, arguments: dict[str, Any], chat: bool) -> ServerReply:
        """Send one HTTP request to the chat or the completions endpoint."""
        if self._limiter is not None:
            await self._limiter.acquire()
        endpoint: Any = self._client.chat.completions if chat else self._client.completions
        # the client's own timeout restarts with every piece of the reply
        async with asyncio.timeout(self.server.timeout):
            response = await endpoint.with_raw_response.create(**arguments)
        return read_reply(response.content, chat)

    def wrong_model(self, reply: ServerReply) -> str | None:
        """Return the problem that another model answered, or None; warn once of each new name."""
        name, allowed = reply.model, self.server.reported_models
        if not name:
            return None
        if allowed is not None:
            return None if name in allowed else f"answered by another model: {name[:_MAX_NAME]}"
        if name not in self._model_names and len(self._model_names) < _MAX_NAMES:
            self._model_names.add(name)
            log.warning(
                "%s: asked for model %r, answered by %r; if that is another model, name the right ones in "
                "reported_models",
                *(self.server.base_url, self.server.model, name[:_MAX_NAME]),
            )
        return None


def _fatal_error(error: BaseException, server: Server) -> InputError | None:
    """Return the error that ends the run if every other request would fail in the same way; otherwise None.

    A rejection of a single request (400, 403, 413, 422) is not fatal: hosted models reject conversations because of
    their filters or length. A wrong parameter is found when many requests fail in a row.
    """
    if not isinstance(error, openai.APIStatusError | ErrorReply):
        return None
    message = f"{server.base_url}: {error_line(error)}"
    if error.status_code == 401:
        return InputError(message, f"check that {server.key_variable} holds the key of this server")
    if error.status_code == 404:
        return InputError(message, f"check that the server offers model {server.model!r} and base_url ends in /v1")
    if error.status_code == 402 or is_out_of_credit(error):
        return InputError(message, "the account has no credit left; answers received so far are saved")
    return None
