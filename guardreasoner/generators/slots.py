"""Requests in flight: an event loop in a thread of its own, with a client of the OpenAI protocol."""

import asyncio
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import openai
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Request
from guardreasoner.generators.patience import Failure, Patience, Unusable, fatal, may_pass, reason

if TYPE_CHECKING:
    from guardreasoner.generators.server import ServerGenerator

Answer = Completion | Failure


class Slots:
    """Takes requests, hands back what became of each; how many are in flight is for the caller to keep small.

    Args:
        generator: whose server and settings are meant.
        key: for the server.
    """

    def __init__(self, generator: "ServerGenerator", key: str) -> None:
        self.generator = generator
        self.done: queue.SimpleQueue[Future[list[Answer]]] = queue.SimpleQueue()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="server-requests", daemon=True)
        self.thread.start()
        self.client = openai.AsyncOpenAI(
            api_key=key, base_url=generator.base_url, timeout=generator.timeout, max_retries=0
        )
        rate = generator.requests_per_minute
        # one second's worth may burst, so that a minute never holds much more than its limit
        self.limiter = None if rate is None else AsyncLimiter(max(1.0, rate / 60), 60 * max(1.0, rate / 60) / rate)

    def knock(self) -> None:
        """Raise ``InputError`` when nobody listens: a wrong address shows at once, and not after all attempts."""

        async def models() -> None:
            await self.client.with_options(timeout=10).models.list()

        try:
            asyncio.run_coroutine_threadsafe(models(), self.loop).result()
        except openai.APITimeoutError:
            pass  # a busy or starting server
        except openai.APIConnectionError as error:
            raise InputError(
                f"{self.generator.base_url}: cannot be reached: {reason(error)}",
                "start the server, or set base_url (OPENAI_BASE_URL) to its address with /v1",
            ) from None
        except Exception as error:
            if isinstance(error, openai.AuthenticationError) and (stop := fatal(error, self.generator)):
                raise stop from None
            # not every server lists its models, or lists them in OpenAI's way

    def send(self, request: Request) -> None:
        """Start a request."""
        asyncio.run_coroutine_threadsafe(self._answer(request), self.loop).add_done_callback(self.done.put)

    def receive(self) -> list[Answer]:
        """Wait for a request to end; return its outputs, or that it failed."""
        return self.done.get().result()

    def close(self) -> None:
        """Stop what is in flight and end the thread."""

        async def stop() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.client.close()

        try:
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(stop(), self.loop).result(timeout=5)
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(timeout=5)

    async def _answer(self, request: Request) -> list[Answer]:
        generator = self.generator
        got: list[Completion] = []
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(generator.attempts),
                wait=Patience(generator.pause),
                retry=retry_if_exception(may_pass),
                reraise=True,
            ):
                with attempt:
                    while len(got) < len(request.seeds):
                        more = await self._ask_for(request, len(got))
                        if not more:
                            raise Unusable("a reply without an output")
                        got += more
        except Exception as error:
            if stop := fatal(error, generator):
                raise stop from None
            failures = [Failure(request.record_id, index, reason(error)) for index in range(len(request.seeds))]
            return [*got, *failures[len(got) :]]
        return list(got)

    async def _ask_for(self, request: Request, start: int) -> Sequence[Completion]:
        """Ask once for outputs from index ``start`` on; return those that came."""
        count = min(len(request.seeds) - start, self.generator.choices_per_request)
        arguments = self.generator.arguments(request, start, count)
        if self.limiter is not None:
            await self.limiter.acquire()
        # the client's own limit starts again with every piece that arrives
        async with asyncio.timeout(self.generator.timeout):
            if self.generator.chat:
                reply: Any = await self.client.chat.completions.create(**arguments)
            else:
                reply = await self.client.completions.create(**arguments)
        try:
            return [
                Completion(
                    request.record_id,
                    start + place,
                    (choice.message.content if self.generator.chat else choice.text) or "",
                    choice.finish_reason,
                    *_tokens(reply.usage, place),
                )
                for place, choice in enumerate((reply.choices or ())[:count])
            ]
        except AttributeError:  # the client checks no types: text, or an object of another form
            raise Unusable("a reply that is not of this protocol") from None


def _tokens(usage: Any, place: int) -> tuple[int | None, int | None]:
    if usage is None:
        return None, None
    return (usage.prompt_tokens, usage.completion_tokens) if place == 0 else (0, 0)
