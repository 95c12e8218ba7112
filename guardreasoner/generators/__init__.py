"""What writes completions: one file a backend, all behind one interface."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for the outputs of one record.

    Args:
        record_id: names the record in what comes back.
        prompt: token ids, for an engine that holds the model.
        text: the same prompt as text, for a server that applies its own template.
        seeds: one per output; output ``index`` is drawn from a RNG keyed by (seeds[index], record_id, index).
    """

    record_id: str
    prompt: tuple[int, ...]
    text: str
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One output: generated text without special tokens.

    Args:
        record_id: the request's.
        index: which of the request's outputs.
        text: what was written.
        finish_reason: why it ended, in a server's words ("stop", "length"); None where nobody says.
        prompt_tokens: what a server counted; None where nobody does. Of several outputs that came in one reply the
            first holds the reply's counts and the others 0, so that sums are right.
        completion_tokens: what the engine wrote; of a server's reply, as with ``prompt_tokens``.
    """

    record_id: str
    index: int
    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Generator(ABC):
    """Generates completions; every request gets one per seed."""

    needs_weights = True
    """Whether the backbone that it was made with must be loaded; not where something else holds the weights."""

    @abstractmethod
    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the outputs of all requests as they finish."""

    def parts(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the same outputs, those together that are kept or lost together: here all of a request.

        An engine whose outputs depend, in their last digits, on what is computed beside them yields chunks of requests
        that follow each other, in their order; asked for the same chunk it gives the same outputs.
        """
        wanted: dict[str, int] = {}

        def noted() -> Iterator[Request]:
            for request in requests:
                wanted[request.record_id] = len(request.seeds)
                yield request

        got: dict[str, list[Completion]] = defaultdict(list)
        for completion in self.generate(noted()):
            got[completion.record_id].append(completion)
            if len(got[completion.record_id]) == wanted.get(completion.record_id):
                yield got.pop(completion.record_id)
        yield from got.values()  # too few, or of no request: the caller says so

    @property
    def settings(self) -> dict[str, Any]:
        """Return what decides the outputs beside model and request, as JSON can hold it: here all plain attributes."""
        plain = (str, int, float, bool, type(None))
        return {name: value for name, value in vars(self).items() if isinstance(value, plain) and name[0] != "_"}

    def model_fingerprint(self, weights: str) -> str:
        """Return the fingerprint of the model that answers, given that of the backbone's weights and tokenizer."""
        return weights
