"""Sampling from a server that speaks the OpenAI protocol: hosted models, vLLM, llama.cpp, ``transformers serve``."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import openai
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.retries import Failure, RetryWait, Unusable, fatal, may_pass, reason
from guardreasoner.generators.seeds import seed_of
from guardreasoner.model.backbone import Backbone
from guardreasoner.workflow.manifest import fingerprint

Answer = Completion | Failure


class ServerGenerator(Generator):
    """Generate with an OpenAI-compatible server: a request a slot at a time, asked again after a fault that may pass.

    Args:
        backbone: of a guard, which hands itself to whatever generates for it; the server holds the weights.
        base_url: the server's address, up to and with its ``/v1``.
        model: the model's name there.
        temperature: 0 is greedy; None leaves it to the server, as do the next two.
        top_p: nucleus.
        max_tokens: longest output; for a model that wants ``max_completion_tokens``, set None here and that one in
            ``extra_body``.
        concurrency: slots; never more requests are in flight.
        requests_per_minute: most requests begun in any minute, after a first burst; None: no limit.
        timeout: seconds from sending a request to the end of its reply.
        attempts: how often a request is sent before it counts as failed.
        pause: seconds before a request is first sent again, doubled each time up to a minute, less a random part; a
            server's own Retry-After comes first.
        give_up_after: failed requests in a row, none answered between them, after which the run ends.
        choices_per_request: most outputs asked for at once; 1 for servers that know no ``n``.
        chat: send the prompt as a user message; off: as text to the completions endpoint.
        send_seed: send a seed with each request, for servers that take one.
        key_variable: environment variable that holds the key.
        extra_body: more fields of the request, as the server calls them.

    Raises:
        InputError: a number out of range.
    """

    needs_weights = False

    def __init__(
        self,
        backbone: Backbone | None = None,
        *,
        base_url: str,
        model: str,
        temperature: float | None = 1.0,
        top_p: float | None = 1.0,
        max_tokens: int | None = 2048,
        concurrency: int = 16,
        requests_per_minute: float | None = None,
        timeout: float = 300.0,
        attempts: int = 8,
        pause: float = 1.0,
        give_up_after: int = 20,
        choices_per_request: int = 1,
        chat: bool = True,
        send_seed: bool = True,
        key_variable: str = "OPENAI_API_KEY",
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        counts = {
            "concurrency": concurrency,
            "attempts": attempts,
            "give_up_after": give_up_after,
            "choices_per_request": choices_per_request,
        }
        for name, value in counts.items():
            if value < 1:
                raise InputError(f"generator: {name} must be at least 1, got {value}")
        for name, seconds in {"timeout": timeout, "requests_per_minute": requests_per_minute}.items():
            if seconds is not None and not 0 < seconds < float("inf"):
                raise InputError(f"generator: {name} must be a number above 0, got {seconds}")
        if not 0 <= pause < float("inf"):
            raise InputError(f"generator: pause must be 0 or above, got {pause}")
        self.base_url = base_url
        self.model = model
        self.concurrency = concurrency
        self.requests_per_minute = requests_per_minute
        self.timeout = timeout
        self.attempts = attempts
        self.pause = pause
        self.give_up_after = give_up_after
        self.choices_per_request = choices_per_request
        self.chat = chat
        self.send_seed = send_seed
        self.key_variable = key_variable
        self.extra_body = extra_body or {}
        sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        self._sampling: dict[str, Any] = {name: value for name, value in sampling.items() if value is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """Return all that decides what a prompt is answered with, but for the seed."""
        return {"model": self.model, "chat": self.chat, **self._sampling, "extra_body": self.extra_body}

    def model_fingerprint(self, weights: str) -> str:
        """Return a hash of what the server is asked for: nothing says which weights it holds."""
        return fingerprint({"served": self.settings})

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the outputs of all requests as they finish.

        Raises:
            InputError: as :meth:`ask`; at the end, when requests failed.
        """
        waiting = iter(requests)
        failures: list[Failure] = []
        for answer in self.ask(lambda: next(waiting, None)):
            if isinstance(answer, Failure):
                failures.append(answer)
            else:
                yield answer
        if failures:
            first = failures[0]
            raise InputError(
                f"{self.base_url}: {len(failures)} requests failed, first {first.record_id}: {first.reason}"
            )

    def ask(self, draw: Callable[[], Request | None]) -> Iterator[Answer]:
        """Yield outputs, and requests that failed for good, as they finish.

        Args:
            draw: gives a request for a free slot, or None when there is none at present. It is called in the caller's
                thread whenever an answer has been dealt with, so that an answer may lead to a request.

        Raises:
            InputError: the key is missing, the server cannot be reached, knows no such model or key, or fails
                ``give_up_after`` times in a row.
        """
        first = draw()
        if first is None:
            return
        key = os.environ.get(self.key_variable)
        if not key:
            raise InputError(
                f"environment variable {self.key_variable} is not set: the key for {self.base_url}",
                f"export {self.key_variable}=…; for a server that asks for no key any word will do",
            )
        slots = Slots(self, key)
        in_flight, failed_in_a_row = 0, 0
        next_one: Request | None = first
        try:
            slots.check_reachable()
            while True:
                while next_one is not None:
                    slots.send(next_one)
                    in_flight += 1
                    next_one = draw() if in_flight < self.concurrency else None
                if not in_flight:
                    return
                for answer in slots.receive():
                    if isinstance(answer, Failure):
                        failed_in_a_row += 1
                        if failed_in_a_row >= self.give_up_after:
                            raise InputError(
                                f"{self.base_url}: {failed_in_a_row} requests in a row failed, "
                                f"the last with {answer.reason}",
                                "give_up_after is how many may, should these requests alone be at fault",
                            )
                    else:
                        failed_in_a_row = 0
                    yield answer
                in_flight -= 1
                next_one = draw()
        finally:
            slots.close()

    def arguments(self, request: Request, index: int, count: int) -> dict[str, Any]:
        """Return what is sent for ``count`` outputs of a request, from ``index`` on."""
        prompt = {"messages": [{"role": "user", "content": request.text}]} if self.chat else {"prompt": request.text}
        sent: dict[str, Any] = {"model": self.model, **prompt, **self._sampling}
        if self.send_seed:
            sent["seed"] = seed_of(request, index)
        if count > 1:
            sent["n"] = count
        if self.extra_body:
            sent["extra_body"] = self.extra_body
        return sent


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

    def check_reachable(self) -> None:
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
                wait=RetryWait(generator.pause),
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
                    (sampler.message.content if self.generator.chat else sampler.text) or "",
                    sampler.finish_reason,
                    *_tokens(reply.usage, place),
                )
                for place, sampler in enumerate((reply.choices or ())[:count])
            ]
        except AttributeError:  # the client checks no types: text, or an object of another form
            raise Unusable("a reply that is not of this protocol") from None


def _tokens(usage: Any, place: int) -> tuple[int | None, int | None]:
    if usage is None:
        return None, None
    return (usage.prompt_tokens, usage.completion_tokens) if place == 0 else (0, 0)
