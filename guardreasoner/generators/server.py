"""Sampling from an OpenAI-compatible server: hosted models, vLLM, llama.cpp, ``transformers serve``."""

import os
from collections import abc
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request, ScoreRequest, Scores
from guardreasoner.generators.retries import Failure, UnusableReply
from guardreasoner.generators.server_connection import Server, ServerConnection
from guardreasoner.generators.server_reply import Output, ServerReply
from guardreasoner.generators.server_scores import (
    Continuation,
    ContinuationScore,
    ScoresInOrder,
    score_arguments,
    score_of,
)
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.prompt_tokenizer import first_difference
from guardreasoner.workflow.manifest import fingerprint
from guardreasoner.workflow.ranges import Count, NotNegative, Positive, PositiveShare
from guardreasoner.workflow.redaction import remember_secrets, without_keys

Reply = Completion | Failure
"""What became of one requested output."""

Sent = TypeVar("Sent", Request, Continuation)
Received = TypeVar("Received", Reply, ContinuationScore)


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
            "give_up_after": give_up_after,
            "choices_per_request": choices_per_request,
        }
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"generator: {name} must be at least 1, got {count}")
        self._backbone = backbone
        remember_secrets({"base_url": base_url, "key_variable": key_variable, "extra_body": extra_body})
        self.server = Server(
            base_url=base_url,
            model=model,
            key_variable=key_variable,
            requests_per_minute=requests_per_minute,
            timeout=timeout,
            attempts=attempts,
            pause=pause,
            reported_models=reported_models,
        )
        self.concurrency = concurrency
        self.give_up_after = give_up_after
        self.choices_per_request = choices_per_request
        self.chat = chat
        self.send_ids = send_ids
        self.send_seed = send_seed
        self.extra_body = extra_body or {}
        sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        self._sampling: dict[str, Any] = {name: value for name, value in sampling.items() if value is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """Return the request fields that determine the outputs, without prompt and seed."""
        return {"model": self.server.model, "chat": self.chat, **self._sampling, "extra_body": self.extra_body}

    @property
    def is_greedy(self) -> bool:
        """Whether the request says temperature 0."""
        return bool({**self._sampling, **self.extra_body}.get("temperature") == 0)

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
        for replies in self._exchange(lambda: next(remaining, None), partial(self._complete, split_allowed=False)):
            failed = [reply for reply in map(_as_failure, replies) if reply]
            failures += failed
            if not failed:
                yield [reply for reply in replies if isinstance(reply, Completion)]
        if failures:
            first = failures[0]
            raise InputError(
                f"{self.server.base_url}: {len(failures)} outputs failed; "
                f"the first, of {first.record_id}: {first.reason}",
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
        for replies in self._exchange(lambda: next(remaining, None), self._score):
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
        for replies in self._exchange(next_request, partial(self._complete, split_allowed=True)):
            yield from replies

    def request_arguments(self, request: Request, start: int, count: int) -> dict[str, Any]:
        """Return the client's arguments for the ``count`` outputs of a request that begin at index ``start``."""
        prompt: dict[str, Any]
        if self.chat:
            prompt = {"messages": [{"role": "user", "content": request.text}]}
        else:
            prompt = {"prompt": list(request.prompt) if self.send_ids and request.prompt else request.text}
        arguments: dict[str, Any] = {"model": self.server.model, **prompt, **self._sampling}
        if self.send_seed:
            arguments["seed"] = request.engine_seed(start)
        if count > 1:
            arguments["n"] = count
        if self.extra_body:
            arguments["extra_body"] = self.extra_body
        return arguments

    def score_arguments(self, continuation: Continuation) -> dict[str, Any]:
        """Return the client's arguments for the score of a continuation."""
        arguments = {"model": self.server.model, **score_arguments(continuation, self.send_ids)}
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
        answer: Callable[[ServerConnection, Sent], Coroutine[Any, Any, list[Received]]],
    ) -> Iterator[list[Received]]:
        """Yield all replies to a request together, as requests finish.

        Args:
            next_request: returns the next request, or None.
            answer: sends a request and returns its replies.
        """
        request = next_request()
        if request is None:
            return
        key = os.environ.get(self.server.key_variable)
        if not key:
            raise InputError(
                f"environment variable {self.server.key_variable} is not set: the API key for {self.server.base_url}",
                f"export {self.server.key_variable}=…; if the server needs no key, any value will do",
            )
        connection = ServerConnection(self.server, key)
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
                        f"{self.server.base_url}: {failed_in_a_row} outputs in a row failed, the last with {gave_up}",
                        _SPLIT_HINT if gave_up == _SPLIT else "raise give_up_after if the server rejects only these",
                    )
                in_flight -= 1
                request = next_request()
        finally:
            connection.close()

    async def _complete(self, connection: ServerConnection, request: Request, split_allowed: bool) -> list[Reply]:
        """Send a request until it has all its outputs or its attempts are used up; return one reply per output."""
        completions: list[Completion] = []

        async def send() -> None:
            while len(completions) < len(request.seeds):
                received = await self._complete_once(connection, request, len(completions), split_allowed)
                if not received:
                    raise UnusableReply("the reply holds no output")
                completions.extend(replace(one, text=without_keys(one.text)) for one in received)

        error = await connection.attempt(send)
        missing = range(len(completions), len(request.seeds))
        return [*completions, *(Failure(request.record_id, index, error or "") for index in missing)]

    async def _score(self, connection: ServerConnection, continuation: Continuation) -> list[ContinuationScore]:
        """Send a continuation until its reply has arrived or its attempts are used up; return one score."""
        scores: list[ContinuationScore] = []

        async def send() -> None:
            scores.append(await self._score_once(connection, continuation))

        if error := await connection.attempt(send):
            failure = Failure(continuation.record_id, continuation.index, error)
            scores.append(ContinuationScore(continuation, None, failure))
        return scores

    async def _complete_once(
        self, connection: ServerConnection, request: Request, start: int, split_allowed: bool
    ) -> list[Completion]:
        """Send one HTTP request for the outputs from index ``start`` on; return those that the reply holds."""
        count = min(len(request.seeds) - start, self.choices_per_request)
        reply = await connection.post(self.request_arguments(request, start, count), self.chat)
        wrong_model = connection.wrong_model(reply)
        return [
            Completion(
                request.record_id,
                start + offset,
                output.text,
                output.finish_reason,
                *_token_counts(reply, offset),
                problem=wrong_model or _problem(output, split_allowed),
            )
            for offset, output in enumerate(reply.outputs[:count])
        ]

    async def _score_once(self, connection: ServerConnection, continuation: Continuation) -> ContinuationScore:
        """Send one HTTP request for the score of a continuation; return the score."""
        reply = await connection.post(self.score_arguments(continuation), chat=False)
        if problem := connection.wrong_model(reply) or reply.outputs[0].problem:
            return ContinuationScore(continuation, None, Failure(continuation.record_id, continuation.index, problem))
        return ContinuationScore(continuation, score_of(continuation, reply.outputs[0]))


_SPLIT = "the server splits the thinking from the text"
_SPLIT_HINT = "start the server without a reasoning parser: an output must be the text that the model wrote"


def _as_failure(reply: Reply | ContinuationScore) -> Failure | None:
    """Return the failure that a reply is or amounts to; None if it is usable."""
    if isinstance(reply, Failure):
        return reply
    if isinstance(reply, ContinuationScore):
        return reply.failure
    return Failure(reply.record_id, reply.index, reply.problem) if reply.problem else None


def _problem(output: Output, split_allowed: bool) -> str | None:
    split = output.thinking and not split_allowed
    return _SPLIT if split and output.problem is None else output.problem


def _token_counts(reply: ServerReply, offset: int) -> tuple[int | None, int | None]:
    """Return the tokens of a reply for its first output, 0 for the others; None if not counted."""
    if reply.prompt_tokens is None or offset == 0:
        return reply.prompt_tokens, reply.completion_tokens
    return 0, 0
