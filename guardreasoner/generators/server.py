"""Sampling from an OpenAI-compatible server: hosted models, vLLM, llama.cpp, ``transformers serve``."""

import asyncio
import logging
import os
import queue
import threading
from collections import abc
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import openai
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request, ScoreRequest, Scores
from guardreasoner.generators.retries import (
    Failure,
    RetryWait,
    UnusableReply,
    error_line,
    fatal_error,
    is_transient,
)
from guardreasoner.generators.server_reply import Output, ServerReply, read_reply
from guardreasoner.generators.server_scores import (
    Continuation,
    ContinuationScore,
    ScoresInOrder,
    score_arguments,
    score_of,
)
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.prompt_tokenizer import first_difference
from guardreasoner.workflow import stop_signals
from guardreasoner.workflow.manifest import fingerprint
from guardreasoner.workflow.ranges import Count, NotNegative, Positive, PositiveShare
from guardreasoner.workflow.redaction import remember_secrets, without_keys

_LOOK_UP = 0.5
"""Seconds after which the wait for replies is interrupted, to see whether a signal has arrived."""

Reply = Completion | Failure
"""What became of one requested output."""

Sent = TypeVar("Sent", Request, Continuation)
Received = TypeVar("Received", Reply, ContinuationScore)

log = logging.getLogger("guardreasoner")


class ServerGenerator(Generator):
    """Generate with an OpenAI-compatible server; requests run concurrently and are retried after transient errors.

    Args:
        backbone: the guard that is sampled, whose tokenizer says which ids the server must see; None for other models.
        base_url: address of the server, up to and including ``/v1``.
        model: name of the model on the server.
        temperature: sampling temperature; 0 is greedy decoding. None leaves it to the server.
        top_p: nucleus sampling threshold. None leaves it to the server.
        max_tokens: maximum length of an output. None leaves it to the server; for a model that requires
            ``max_completion_tokens``, set None here and that field in ``extra_body``.
        concurrency: maximum number of requests in flight.
        requests_per_minute: maximum number of requests started per minute, after an initial burst of one second's
            worth; None is no limit.
        timeout: maximum seconds from sending a request to the end of its reply.
        attempts: number of attempts before a request counts as failed.
        pause: maximum seconds before the second attempt, doubled with each attempt up to a minute, with jitter. A
            Retry-After header takes precedence.
        give_up_after: number of consecutive failed outputs after which the run ends.
        choices_per_request: maximum number of outputs per HTTP request (``n``); 1 for servers that do not support it.
        chat: whether the prompt is sent as a user message, which the server wraps in its chat template; if False, it is
            sent to the completions endpoint: as ids if the request has any, otherwise as text.
        send_ids: whether the completions endpoint gets ids; False sends text, for servers that accept no ids.
        send_seed: whether a seed is sent with each request.
        key_variable: environment variable that holds the API key.
        extra_body: additional fields of the request body.
        reported_models: names under which the server may report the model that answered; an answer under another name
            is not used. None accepts every name, with a warning for each that differs from ``model``.

    Raises:
        InputError: raised if a number is out of range.
    """

    needs_weights = False
    scores_by_default = False  # many servers return no log-probabilities of a prompt, and each record is a request more

    def __init__(
        self,
        backbone: Backbone | None = None,
        *,
        base_url: str,
        model: str,
        temperature: NotNegative | None = 1.0,
        top_p: PositiveShare | None = 1.0,
        max_tokens: Count | None = 2048,
        concurrency: Count = 16,
        requests_per_minute: Positive | None = None,
        timeout: Positive = 300.0,
        attempts: Count = 8,
        pause: NotNegative = 1.0,
        give_up_after: Count = 20,
        choices_per_request: Count = 1,
        chat: bool = True,
        send_ids: bool = True,
        send_seed: bool = True,
        key_variable: str = "OPENAI_API_KEY",
        extra_body: dict[str, Any] | None = None,
        reported_models: list[str] | None = None,
    ) -> None:
        counts = {
            "concurrency": concurrency,
            "attempts": attempts,
            "give_up_after": give_up_after,
            "choices_per_request": choices_per_request,
        }
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"generator: {name} must be at least 1, got {count}")
        for name, value in {"timeout": timeout, "requests_per_minute": requests_per_minute}.items():
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"generator: {name} must be a number above 0, got {value}")
        if not 0 <= pause < float("inf"):
            raise InputError(f"generator: pause must be 0 or above, got {pause}")
        self._backbone = backbone
        remember_secrets({"base_url": base_url, "key_variable": key_variable, "extra_body": extra_body})
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
        self.send_ids = send_ids
        self.send_seed = send_seed
        self.key_variable = key_variable
        self.extra_body = extra_body or {}
        self.reported_models = reported_models
        sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        self._sampling: dict[str, Any] = {name: value for name, value in sampling.items() if value is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """Return the request fields that determine the outputs, without prompt and seed."""
        return {"model": self.model, "chat": self.chat, **self._sampling, "extra_body": self.extra_body}

    def model_fingerprint(self, weights: str) -> str:
        """Return a hash of the settings, because the weights on the server are unknown."""
        return fingerprint({"served": self.settings})

    def group_size(self, outputs: int) -> int:
        """Return 1: requests are independent."""
        return 1

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the completions of each request as it finishes.

        An output with a problem counts as failed. So does one from which the server has split the thinking, because the
        rest is not what the model wrote.

        Raises:
            InputError: raised as by :meth:`ask`, if the server would see other ids than the backbone's, and at the end
                if requests failed.
        """
        remaining = map(self._checked, requests)
        failures: list[Failure] = []
        for replies in self._exchange(lambda: next(remaining, None), _Connection.complete, split_allowed=False):
            failed = [reply for reply in map(_as_failure, replies) if reply]
            failures += failed
            if not failed:
                yield [reply for reply in replies if isinstance(reply, Completion)]
        if failures:
            first = failures[0]
            raise InputError(
                f"{self.base_url}: {len(failures)} outputs failed; the first, of {first.record_id}: {first.reason}",
                _SPLIT_HINT if first.reason == _SPLIT else None,
            )

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores of each request, in order, from the log-probabilities that the server returns of prompts.

        Each continuation is sent to the completions endpoint after its prompt, also if ``chat`` is set: as ids, or as
        text if ``send_ids`` is False.

        Raises:
            InputError: as by :meth:`ask`; also if the server returns no log-probabilities of the prompt or would see
                other ids than those to score, or at the first request that failed.
        """
        scores = ScoresInOrder(requests)
        remaining = map(self._checked_continuation, scores.continuations())
        for replies in self._exchange(lambda: next(remaining, None), _Connection.score, split_allowed=True):
            for reply in replies:
                yield from scores.add(reply)
        yield from scores.complete()

    def ask(self, next_request: Callable[[], Request | None]) -> abc.Generator[Reply, None, None]:
        """Yield completions and failures as requests finish; a completion may have a problem.

        Args:
            next_request: returns the next request, or None if there is none at present. It is called in the caller's
                thread, also after each reply has been processed, so a reply can lead to a new request.

        Raises:
            InputError: raised if the key is missing or wrong, the server cannot be reached, the model is unknown, the
                account has no credit, or ``give_up_after`` outputs in a row fail or have a problem.
        """
        for replies in self._exchange(next_request, _Connection.complete, split_allowed=True):
            yield from replies

    def request_arguments(self, request: Request, start: int, count: int) -> dict[str, Any]:
        """Return the client's arguments for the ``count`` outputs of a request that begin at index ``start``."""
        prompt: dict[str, Any]
        if self.chat:
            prompt = {"messages": [{"role": "user", "content": request.text}]}
        else:
            prompt = {"prompt": list(request.prompt) if self.send_ids and request.prompt else request.text}
        arguments: dict[str, Any] = {"model": self.model, **prompt, **self._sampling}
        if self.send_seed:
            arguments["seed"] = request.engine_seed(start)
        if count > 1:
            arguments["n"] = count
        if self.extra_body:
            arguments["extra_body"] = self.extra_body
        return arguments

    def score_arguments(self, continuation: Continuation) -> dict[str, Any]:
        """Return the client's arguments for the score of a continuation."""
        arguments = {"model": self.model, **score_arguments(continuation, self.send_ids)}
        own = {*arguments, "max_completion_tokens", "n"}
        if extra_body := {name: value for name, value in self.extra_body.items() if name not in own}:
            arguments["extra_body"] = extra_body
        return arguments

    def _checked(self, request: Request) -> Request:
        """Return a request; raise ``InputError`` if the server would make other ids of its text than the backbone.

        A server applies its own chat template, with today's date, and tokenizes the resulting text itself.
        """
        if self._backbone is None or (self.send_ids and not self.chat):
            return request
        prompt_tokenizer = self._backbone.prompt_tokenizer
        tokenizer, template = prompt_tokenizer.tokenizer, prompt_tokenizer.chat_template
        hint = "set generator.chat: false (and send_ids: true), so that the server gets the ids themselves"
        if self.chat and template is None:
            raise InputError("generator.chat: the model was trained on raw text, without a chat template", hint)
        ids = template.server_ids(request.text) if self.chat and template else tokenizer(request.text)["input_ids"]
        if tuple(ids) == request.prompt:
            return request
        raise InputError(
            f"record {request.record_id}: the server would see another prompt than the model was trained on: "
            f"{first_difference(tokenizer, ids, request.prompt)}",
            hint,
        )

    def _checked_continuation(self, continuation: Continuation) -> Continuation:
        """Return a continuation; raise ``InputError`` if the server would make other ids of its text.

        A token of the text may reach from the prompt into the continuation, for example.
        """
        if self.send_ids:
            return continuation
        hint = "set generator.send_ids: true, so that the server gets the ids themselves"
        if self._backbone is None:
            raise InputError("generator: scores of texts need the backbone, whose tokenizer checks them", hint)
        tokenizer = self._backbone.prompt_tokenizer.tokenizer
        ids = tokenizer(continuation.text)["input_ids"]
        if tuple(ids) == continuation.ids:
            return continuation
        raise InputError(
            f"record {continuation.record_id}: the server would see other tokens than those to score: "
            f"{first_difference(tokenizer, ids, continuation.ids)}",
            hint,
        )

    def _exchange(
        self,
        next_request: Callable[[], Sent | None],
        answer: "Callable[[_Connection, Sent], Coroutine[Any, Any, list[Received]]]",
        split_allowed: bool,
    ) -> Iterator[list[Received]]:
        """Yield all replies to a request together, as requests finish.

        Args:
            next_request: returns the next request, or None.
            answer: sends a request and returns its replies.
            split_allowed: whether the server may return the thinking apart from the text.
        """
        request = next_request()
        if request is None:
            return
        key = os.environ.get(self.key_variable)
        if not key:
            raise InputError(
                f"environment variable {self.key_variable} is not set: the API key for {self.base_url}",
                f"export {self.key_variable}=…; if the server needs no key, any value will do",
            )
        connection = _Connection(self, key, split_allowed)
        in_flight, failed_in_a_row = 0, 0
        try:
            connection.check_reachable()
            while True:
                while request is not None:
                    connection.start(answer(connection, request))
                    in_flight += 1
                    request = next_request() if in_flight < self.concurrency else None
                if not in_flight:
                    return
                replies: list[Received] = connection.receive()
                gave_up: str | None = None
                for failure in map(_as_failure, replies):
                    failed_in_a_row = failed_in_a_row + 1 if failure else 0
                    if failure and failed_in_a_row >= self.give_up_after:
                        gave_up = failure.reason
                        break
                yield replies
                if gave_up is not None:
                    raise InputError(
                        f"{self.base_url}: {failed_in_a_row} outputs in a row failed, the last with {gave_up}",
                        _SPLIT_HINT if gave_up == _SPLIT else "raise give_up_after if the server rejects only these",
                    )
                in_flight -= 1
                request = next_request()
        finally:
            connection.close()


_SPLIT = "the server splits the thinking from the text"
_SPLIT_HINT = "start the server without a reasoning parser: an output must be the text that the model wrote"


def _as_failure(reply: Reply | ContinuationScore) -> Failure | None:
    """Return the failure that a reply is or amounts to; None if it is usable."""
    if isinstance(reply, Failure):
        return reply
    if isinstance(reply, ContinuationScore):
        return reply.failure
    return Failure(reply.record_id, reply.index, reply.problem) if reply.problem else None


class _Connection:
    """Runs requests concurrently in an event loop of its own thread. It does not limit the number in flight.

    Args:
        generator: names the server and its settings.
        key: API key.
        split_allowed: whether the server may return the thinking apart from the text.
    """

    def __init__(self, generator: ServerGenerator, key: str, split_allowed: bool) -> None:
        self.generator = generator
        self.split_allowed = split_allowed
        self.model_names = {generator.model}
        """Names under which the server has answered."""
        self.finished: queue.SimpleQueue[Future[list[Any]]] = queue.SimpleQueue()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="server-requests", daemon=True)
        self.thread.start()
        self.client = openai.AsyncOpenAI(
            api_key=key, base_url=generator.base_url, timeout=generator.timeout, max_retries=0
        )
        rate = generator.requests_per_minute
        # a burst of one second's worth, so that no minute holds much more than the limit
        self.limiter = None if rate is None else AsyncLimiter(max(1.0, rate / 60), 60 * max(1.0, rate / 60) / rate)

    def check_reachable(self) -> None:
        """Raise ``InputError`` if nothing listens, so that a wrong address is reported before any retries."""

        async def list_models() -> None:
            await self.client.with_options(timeout=10).models.list()

        try:
            asyncio.run_coroutine_threadsafe(list_models(), self.loop).result()
        except openai.APITimeoutError:
            pass  # the server is busy or starting
        except openai.APIConnectionError as error:
            raise InputError(
                f"{self.generator.base_url}: cannot be reached: {error_line(error)}",
                "start the server, or set base_url (OPENAI_BASE_URL) to its address, ending in /v1",
            ) from None
        except Exception as error:
            # other errors are ignored: not every server lists its models, or does so in OpenAI's format
            if isinstance(error, openai.AuthenticationError) and (fatal := fatal_error(error, self.generator)):
                raise fatal from None

    def start(self, answer: Coroutine[Any, Any, list[Any]]) -> None:
        """Start a coroutine that sends a request and returns its replies."""
        future = asyncio.run_coroutine_threadsafe(answer, self.loop)
        future.add_done_callback(self.finished.put)

    def receive(self) -> list[Any]:
        """Wait until a request has finished; return its replies.

        Raises:
            Stopped: a signal arrived.
        """
        while True:
            with suppress(queue.Empty):
                return self.finished.get(timeout=_LOOK_UP).result()
            stop_signals.check()

    def close(self) -> None:
        """Cancel what is in flight and end the thread."""

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

    async def complete(self, request: Request) -> list[Reply]:
        """Send a request until it has all its outputs or its attempts are used up; return one reply per output."""
        completions: list[Completion] = []

        async def send() -> None:
            while len(completions) < len(request.seeds):
                received = await self._complete_once(request, len(completions))
                if not received:
                    raise UnusableReply("the reply holds no output")
                completions.extend(replace(one, text=without_keys(one.text)) for one in received)

        error = await self._attempt(send)
        missing = range(len(completions), len(request.seeds))
        return [*completions, *(Failure(request.record_id, index, error or "") for index in missing)]

    async def score(self, continuation: Continuation) -> list[ContinuationScore]:
        """Send a continuation until its reply has arrived or its attempts are used up; return one score."""
        scores: list[ContinuationScore] = []

        async def send() -> None:
            scores.append(await self._score_once(continuation))

        if error := await self._attempt(send):
            failure = Failure(continuation.record_id, continuation.index, error)
            scores.append(ContinuationScore(continuation, None, failure))
        return scores

    async def _attempt(self, send: Callable[[], Awaitable[None]]) -> str | None:
        """Call ``send`` until it succeeds or the attempts are used up.

        Returns:
            None, or the last error in one line.

        Raises:
            InputError: every other request would fail in the same way.
        """
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(self.generator.attempts),
                wait=RetryWait(self.generator.pause),
                retry=retry_if_exception(is_transient),
                reraise=True,
            ):
                with attempt:
                    await send()
        except InputError:
            raise
        except Exception as error:
            if fatal := fatal_error(error, self.generator):
                raise fatal from None
            return error_line(error)
        return None

    async def _complete_once(self, request: Request, start: int) -> list[Completion]:
        """Send one HTTP request for the outputs from index ``start`` on; return those that the reply holds."""
        count = min(len(request.seeds) - start, self.generator.choices_per_request)
        chat = self.generator.chat
        reply = await self._post(self.generator.request_arguments(request, start, count), chat)
        wrong_model = self._wrong_model(reply)
        return [
            Completion(
                request.record_id,
                start + offset,
                output.text,
                output.finish_reason,
                *_token_counts(reply, offset),
                problem=wrong_model or self._problem(output),
            )
            for offset, output in enumerate(reply.outputs[:count])
        ]

    async def _score_once(self, continuation: Continuation) -> ContinuationScore:
        """Send one HTTP request for the score of a continuation; return the score."""
        reply = await self._post(self.generator.score_arguments(continuation), chat=False)
        if problem := self._wrong_model(reply) or self._problem(reply.outputs[0]):
            return ContinuationScore(continuation, None, Failure(continuation.record_id, continuation.index, problem))
        return ContinuationScore(continuation, score_of(continuation, reply.outputs[0]))

    async def _post(self, arguments: dict[str, Any], chat: bool) -> ServerReply:
        """Send one HTTP request to the chat or the completions endpoint."""
        if self.limiter is not None:
            await self.limiter.acquire()
        endpoint: Any = self.client.chat.completions if chat else self.client.completions
        # the client's own timeout restarts with every piece of the reply
        async with asyncio.timeout(self.generator.timeout):
            response = await endpoint.with_raw_response.create(**arguments)
        return read_reply(response.content, chat)

    def _problem(self, output: Output) -> str | None:
        split = output.thinking and not self.split_allowed
        return _SPLIT if split and output.problem is None else output.problem

    def _wrong_model(self, reply: ServerReply) -> str | None:
        """Return the problem that another model answered, or None; warn once of each new name."""
        name, allowed = reply.model, self.generator.reported_models
        if not name:
            return None
        if allowed is not None:
            return None if name in allowed else f"answered by another model: {name[:_MAX_NAME]}"
        if name not in self.model_names and len(self.model_names) < _MAX_NAMES:
            self.model_names.add(name)
            log.warning(
                "%s: asked for model %r, answered by %r; if that is another model, name the right ones in "
                "reported_models",
                *(self.generator.base_url, self.generator.model, name[:_MAX_NAME]),
            )
        return None


_MAX_NAME, _MAX_NAMES = 100, 10


def _token_counts(reply: ServerReply, offset: int) -> tuple[int | None, int | None]:
    """Return the tokens of a reply for its first output, 0 for the others; None if not counted."""
    if reply.prompt_tokens is None or offset == 0:
        return reply.prompt_tokens, reply.completion_tokens
    return 0, 0
