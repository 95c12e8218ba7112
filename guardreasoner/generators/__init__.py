"""Generation engines: one file a backend, all behind the ``Generator`` interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self, final

from guardreasoner.errors import InputError


@dataclass(frozen=True, slots=True)
class Request:
    """A request for one or several completions of one prompt.

    Args:
        record_id: identifies the record; each completion carries it.
        prompt: the prompt as token ids, for engines that run the model themselves.
        text: the same prompt as text, for servers that tokenize it themselves.
        seeds: one seed per completion.
    """

    record_id: str
    prompt: tuple[int, ...]
    text: str
    seeds: tuple[int, ...]

    def rng_key(self, index: int) -> bytes:
        """Return the 32 bytes that seed the RNG of completion ``index``: a hash of its seed, record id and index."""
        return sha256(f"{self.seeds[index]}\0{self.record_id}\0{index}".encode()).digest()

    def engine_seed(self, index: int) -> int:
        """Return the seed of completion ``index`` for engines with an RNG of their own.

        It has 31 bits because some engines store seeds as signed 32-bit integers.
        """
        return int.from_bytes(self.rng_key(index)[:4], "big") >> 1


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated text, without special tokens.

    Args:
        record_id: record id of the request.
        index: position of this completion among those of its request.
        text: the generated text.
        finish_reason: why generation ended: "stop" with an end token, "length" at the limit of tokens, "abandoned" by a
            watch, or another value that a server reports; None if unknown.
        prompt_tokens: prompt tokens that a server counted; None if unknown. If one reply holds several completions,
            the first carries the counts of the reply and the others 0, so that sums are correct.
        completion_tokens: generated tokens; counted as ``prompt_tokens`` are if they come from a server.
        problem: why a server's reply holds no usable text, such as "tool call"; details follow a colon. None if it
            does.
        ids: the generated token ids, with the end token if the text has ended; empty from engines that return text
            alone.
    """

    record_id: str
    index: int
    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    problem: str | None = None
    ids: tuple[int, ...] = ()


Watch = Callable[[str], bool]
"""Called with each new piece of an output's text while it is generated, also with an empty one; returns whether the
output is still wanted."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A request for the log-probabilities of several continuations of one prompt.

    Args:
        record_id: identifies the record.
        prompt: the prompt as token ids; at least one.
        continuations: token ids of each continuation.
        text: the prompt as text, for servers that accept no ids.
        continuation_texts: the text of each continuation, for servers that accept no ids. A continuation that ends with
            a special token has that token's text at its end.

    Raises:
        InputError: the prompt has no tokens.
    """

    record_id: str
    prompt: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    text: str = ""
    continuation_texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InputError(f"record {self.record_id}: the prompt has no tokens, so nothing can be predicted from it")


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of the continuations of one request.

    Args:
        record_id: record id of the request.
        logps: for each continuation, the sum of the log-probabilities of its tokens, each given the prompt and the
            tokens before it, in nats; 0 for a continuation without tokens.
    """

    record_id: str
    logps: tuple[float, ...]


Scorer = Callable[[Iterable[ScoreRequest]], Iterator[Scores]]
"""Yields the scores of requests, as :meth:`Generator.score` does."""


class Generator(ABC):
    """Generates completions. A subclass implements ``generate_groups``, and ``score`` if it can.

    Raises:
        InputError: raised if the engine's class overrides ``generate``, which was the interface of earlier versions.
    """

    needs_weights = True
    """Whether the engine samples from the weights of its backbone, which must then be loaded."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # before the check for abstract methods, which would not say what to do
        if cls.generate is not Generator.generate:
            raise InputError(
                f"{cls.__module__}.{cls.__qualname__} overrides Generator.generate",
                "implement generate_groups(requests) instead, which yields lists of completions",
            )
        return super().__new__(cls)

    @abstractmethod
    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the completions of all requests in groups; a caller keeps or discards a group as a whole.

        A group holds all completions of one or several requests: each request gets one completion per seed. If the
        completions of an engine depend, through rounding, on what is computed in the same batch, then a group is a
        chunk of consecutive requests, groups come in the order of the requests, and generating the same chunk again
        gives the same completions.
        """

    def group_size(self, outputs: int) -> int | None:
        """Return how many consecutive requests are computed together.

        Several processes share the requests of a run in such groups, so that the completions do not depend on the
        number of processes.

        Args:
            outputs: number of completions of each request.

        Returns:
            The number of requests; 1 if each is computed alone; None if it is unknown, and requests that are passed
            together must stay together.
        """
        return None

    @final
    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the completions of all requests one by one."""
        for group in self.generate_groups(requests):
            yield from group

    def generate_watched(self, requests: Iterable[Request], watches: Mapping[str, Watch]) -> Iterator[Completion]:
        """Yield the completions as :meth:`generate` does, and report the text of some of them as it grows.

        An engine that cannot report unfinished text ignores the watches, as this method does.

        Args:
            requests: the requests.
            watches: by record id, the watch of the request's first completion. If it returns False, the engine may end
                the completion, whose text is then empty.
        """
        return self.generate(requests)

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores of each request, in the order of the requests.

        The scores of a request do not depend on the other requests, except through rounding.

        Raises:
            InputError: the engine cannot score continuations.
        """
        raise InputError(
            f"{type(self).__name__} cannot score continuations",
            "LocalGenerator, PlainGenerator, VLLMGenerator and ServerGenerator can, also in the actors of RayGenerator",
        )

    def incremental_scorer(self) -> Scorer:
        """Return a scorer for the prompts of one growing conversation; it may keep what it computes for the next call.

        Its scores are those of :meth:`score`, except through rounding. It is not thread-safe. By default it keeps
        nothing: it is :meth:`score`.
        """
        return self.score

    scores_by_default = True
    """Whether a test scores labels with this engine unless it is told otherwise."""

    @property
    def can_score(self) -> bool:
        """Whether the engine implements :meth:`score`."""
        return type(self).score is not Generator.score

    @property
    def scores_in_one_pass(self) -> bool:
        """Whether many continuations of a prompt cost little more than one: what they share is computed once."""
        return False

    @property
    def settings(self) -> dict[str, Any]:
        """Return the JSON-serializable settings that determine the completions of a given model and request.

        By default these are all public attributes that are strings, numbers, booleans or None.
        """
        plain = (str, int, float, bool, type(None))
        return {name: value for name, value in vars(self).items() if isinstance(value, plain) and name[0] != "_"}

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is taken each time; by default, the setting ``temperature`` says so."""
        return bool(self.settings.get("temperature", 0) == 0)

    def model_fingerprint(self, weights: str) -> str:
        """Return the fingerprint of the model that generates.

        Args:
            weights: fingerprint of the backbone's weights and tokenizer.
        """
        return weights
