"""Scores of given continuations from a server that returns the log-probabilities of the prompt (``echo``)."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.generators import ScoreRequest, Scores
from guardreasoner.generators.retries import Failure
from guardreasoner.generators.server_reply import Output

_NO_LOGPS = "the completions endpoint must return log-probabilities of the prompt (echo and logprobs), as vLLM's does"
_OTHER_TOKENS = "the server may add or merge tokens; generator.send_ids: true sends the ids themselves"


@dataclass(slots=True)
class _Scoring:
    """A request whose continuations are being scored.

    Args:
        request: the request.
        logps: the score of each continuation, None if it is not known.
        missing: number of continuations without a reply.
        failure: why a continuation could not be scored; None if there is none.
    """

    request: ScoreRequest
    logps: list[float | None] = field(init=False)
    missing: int = field(init=False)
    failure: Failure | None = None

    def __post_init__(self) -> None:
        self.logps = [None if ids else 0.0 for ids in self.request.continuations]
        self.missing = self.logps.count(None)


@dataclass(frozen=True, slots=True)
class Continuation:
    """One continuation of a request, with at least one token.

    Args:
        scoring: the request and its scores so far.
        index: position of the continuation among those of the request.
    """

    scoring: _Scoring
    index: int

    @property
    def record_id(self) -> str:
        """Record id of the request."""
        return self.scoring.request.record_id

    @property
    def start(self) -> int:
        """Number of tokens before the continuation."""
        return len(self.scoring.request.prompt)

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids of prompt and continuation."""
        return self.scoring.request.prompt + self.scoring.request.continuations[self.index]

    @property
    def text(self) -> str:
        """Text of prompt and continuation."""
        texts = self.scoring.request.continuation_texts
        if len(texts) != len(self.scoring.request.continuations):
            raise InputError(f"record {self.record_id}: a server that accepts no ids needs the texts of continuations")
        return self.scoring.request.text + texts[self.index]


@dataclass(frozen=True, slots=True)
class ContinuationScore:
    """What became of one continuation.

    Args:
        continuation: the continuation.
        logp: its score in nats; None if it could not be obtained.
        failure: why it could not.
    """

    continuation: Continuation
    logp: float | None
    failure: Failure | None = None


class ScoresInOrder:
    """Splits requests into continuations, and returns their scores in the order of the requests.

    Args:
        requests: the requests; they are read as their continuations are.
    """

    def __init__(self, requests: Iterable[ScoreRequest]) -> None:
        self._requests = iter(requests)
        self._open: deque[_Scoring] = deque()

    def continuations(self) -> Iterator[Continuation]:
        """Yield the continuations of all requests that have tokens."""
        for request in self._requests:
            scoring = _Scoring(request)
            self._open.append(scoring)
            yield from [Continuation(scoring, index) for index, logp in enumerate(scoring.logps) if logp is None]

    def add(self, score: ContinuationScore) -> Iterator[Scores]:
        """Add the score of a continuation; yield as :meth:`complete` does."""
        scoring = score.continuation.scoring
        scoring.logps[score.continuation.index] = score.logp
        scoring.failure = scoring.failure or score.failure
        scoring.missing -= 1
        yield from self.complete()

    def complete(self) -> Iterator[Scores]:
        """Yield the scores of the requests that are next and have all replies.

        Raises:
            InputError: the next request failed.
        """
        while self._open and not self._open[0].missing:
            scoring = self._open.popleft()
            if scoring.failure is not None:
                raise InputError(
                    f"record {scoring.request.record_id}: a continuation was not scored: {scoring.failure.reason}",
                    _NO_LOGPS,
                )
            yield Scores(scoring.request.record_id, tuple(logp for logp in scoring.logps if logp is not None))


def score_arguments(continuation: Continuation, send_ids: bool) -> dict[str, Any]:
    """Return the fields of the HTTP request whose reply holds the log-probabilities of a continuation."""
    prompt = list(continuation.ids) if send_ids else continuation.text
    # the generated token is not used, but some servers refuse to generate none
    return {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0.0}


def score_of(continuation: Continuation, output: Output) -> float:
    """Return the score of a continuation from the output of a reply.

    Raises:
        InputError: the reply has no log-probabilities of the prompt, or those of another number of tokens.
    """
    tokens, logps = len(continuation.ids), output.token_logps or ()
    if len(logps) <= 1:
        raise InputError(
            f"record {continuation.record_id}: the server returned no log-probabilities of the prompt", _NO_LOGPS
        )
    if not tokens <= len(logps) <= tokens + 1:
        raise InputError(
            f"record {continuation.record_id}: the server returned log-probabilities of {len(logps):,} tokens, but "
            f"prompt and continuation have {tokens:,}",
            _OTHER_TOKENS,
        )
    scored = [logp for logp in logps[continuation.start : tokens] if logp is not None]
    if len(scored) < tokens - continuation.start:
        raise InputError(
            f"record {continuation.record_id}: the server left out the log-probabilities of some tokens", _NO_LOGPS
        )
    return sum(scored)
