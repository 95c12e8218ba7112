"""What writes completions: one file a backend, all behind one interface."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


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
        completion_tokens: likewise.
    """

    record_id: str
    index: int
    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Generator(ABC):
    """Generates completions and yields them as they finish; every request gets one per seed."""

    @abstractmethod
    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the outputs of all requests."""
