"""Sampling with the model in this process: finished outputs leave, waiting ones enter, nothing is padded."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.decode_cache import DecodeCache
from guardreasoner.generators.parallel import chunks, parallel_map
from guardreasoner.generators.plain import PlainGenerator
from guardreasoner.generators.token_sampler import TokenSampler, draws, end_tokens
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Segment, common_prefix_length
from guardreasoner.model.packed_attention import KeyValues, PackedContext

log = logging.getLogger("guardreasoner")

_BATCHES = 8
"""A chunk has outputs for so many batches: at its end rows fall idle, and a later batch makes up for that."""

_FREE = 0.25
"""Requests enter once this share of the rows is free: fewer at a time, and the network would run again and again for a
few short prompts; more, and too many rows would be idle."""

_PREFILL = 16384
"""Prompt tokens computed at once, at most, which bounds the memory for what lies between two layers."""


class LocalGenerator(Generator):
    """Generate with a loaded backbone, in rows that are never idle for long.

    A prompt is computed once for all its outputs, and what all prompts of a chunk begin with is computed once. Nothing
    need be known of how long outputs get: one that ends leaves its row to another.

    Each output is drawn from a RNG of its own, so neither its neighbours nor the order of requests changes it; chunks
    are worked through on their own, and the same chunk always gives the same text.

    A network that takes no contexts (:attr:`Backbone.supports_packing`) is left to :class:`PlainGenerator`.

    Args:
        backbone: the model.
        max_new_tokens: longest output, its end token included.
        temperature: 0 is greedy.
        top_p: nucleus; 1 is the whole distribution.
        batch_size: outputs computed at once; all of a request's run together, even where they are more.
        workers: chunks computed side by side, each on one thread; None: as many as torch has threads on a CPU, where a
            small network cannot keep two threads busy, and 1 on any other device.
        chunk: requests that are worked through together, and whose outputs are given out together; None: as many as
            have outputs for eight batches.

    Raises:
        InputError: a number out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        max_new_tokens: int = 2048,
        temperature: float = 1.0,
        top_p: float = 1.0,
        batch_size: int = 128,
        workers: int | None = None,
        chunk: int | None = None,
    ) -> None:
        if chunk is not None and chunk < 1:
            raise InputError(f"generator: chunk must be at least 1, got {chunk}")
        self._plain = PlainGenerator(backbone, max_new_tokens, temperature, top_p, batch_size, workers)
        self.backbone = backbone
        self.max_new_tokens = max_new_tokens
        self.sampler = TokenSampler(temperature, top_p)
        self.batch_size = batch_size
        self.workers = workers
        self.chunk = chunk
        self._ends: frozenset[int] = frozenset()
        self._said = False

    @property
    def settings(self) -> dict[str, Any]:
        """Return what decides the outputs; batches and chunks do so by rounding."""
        return {**self._plain.settings, "chunk": self.chunk}

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield every request's outputs, chunk by chunk, in the order of the requests."""
        for part in self.parts(requests):
            yield from part

    def parts(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the outputs of one chunk after the other."""
        self.backbone.load()
        self.backbone.eval()
        if not self.backbone.supports_packing:
            if not self._said:
                log.info("this network generates in padded batches: its attention cannot be told what a token sees")
            self._said = True
            yield from self._plain.parts(requests)
            return
        self._ends = end_tokens(self.backbone)
        whole = list(chunks(requests, self._chunk_size))
        yield from parallel_map(self._generate_chunk, whole, self.backbone, self.workers)

    def _chunk_size(self, first: Request) -> int:
        return self.chunk or max(1, _BATCHES * self.batch_size // len(first.seeds))

    def _is_end(self, key: tuple[str, int], count: int, token: int) -> bool:
        """Return whether an output has ended.

        Args:
            key: record id and index.
            count: tokens of the output, the last one included.
            token: the last one; it is no part of the text where it is an end.
        """
        return token in self._ends

    def _generate_chunk(self, chunk: Sequence[Request]) -> list[Completion]:
        outputs = _Chunk(self.backbone, chunk, self.batch_size, self.max_new_tokens, self.sampler, self._is_end).run()
        return [
            Completion(
                *output.key,
                self.backbone.prompt_tokenizer.decode(output.written),
                completion_tokens=len(output.written),
            )
            for output in outputs
        ]


@dataclass(slots=True)
class _Output:
    """An output while it is written.

    Args:
        key: record id and index.
        draws: a random number for each of its tokens.
        written: its tokens without the one that ended it.
        done: whether it has ended or is as long as it may be.
        last: its last token.
    """

    key: tuple[str, int]
    draws: np.ndarray
    written: list[int] = field(default_factory=list)
    done: bool = False
    last: int = -1


class _Chunk:
    """Requests that are worked through together.

    Args:
        backbone: the model.
        requests: in the order of what is returned.
        batch_size: outputs computed at once, if no request has more.
        max_new_tokens: longest output.
        choice: of tokens.
        is_end: says of an output's key, tokens so far and last token whether it has ended.
    """

    def __init__(
        self,
        backbone: Backbone,
        requests: Sequence[Request],
        batch_size: int,
        max_new_tokens: int,
        sampler: TokenSampler,
        is_end: Callable[[tuple[str, int], int, int], bool],
    ) -> None:
        self.backbone = backbone
        self.requests = requests
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.sampler = sampler
        self.is_end = is_end
        self.device = next(backbone.parameters()).device
        self.shared = common_prefix_length([request.prompt for request in requests])

    @torch.inference_mode()
    def run(self) -> list[_Output]:
        """Return every request's outputs, in the order of the requests."""
        every = [
            [_Output((r.record_id, n), draws(r, n, self.max_new_tokens)) for n in range(len(r.seeds))]
            for r in self.requests
        ]
        prefix = self.backbone.encode_prefix(
            torch.tensor(self.requests[0].prompt[: self.shared], device=self.device).long()
        )
        rows = max(self.batch_size, *map(len, every))
        cache = DecodeCache(min(rows, sum(map(len, every))), prefix, self.device)
        # prompts of like lengths run side by side, as a step costs what its longest row does
        waiting = deque(sorted(range(len(every)), key=lambda n: len(self.requests[n].prompt), reverse=True))
        active: list[_Output] = []
        while waiting or active:
            if entering := self._entering(waiting, cache):
                fresh = [every[number] for number in entering]
                logits = self._enter(cache, [self.requests[n].prompt[self.shared :] for n in entering], fresh)
                active += (written := [output for outputs in fresh for output in outputs])
            else:
                positions = cache.advance()
                ids = torch.tensor([[output.last] for output in active], device=self.device)
                logits = self.backbone.logits(self.backbone.next_hidden(ids, positions, cache))
                written = active
            self._write(written, logits)
            order = _order([output.done for output in active])
            cache.keep(order)
            active = [active[row] for row in order]
        return [output for outputs in every for output in outputs]

    def _entering(self, waiting: deque[int], cache: DecodeCache) -> list[int]:
        """Take the requests that enter now, none where it would not pay."""
        free = cache.rows - len(cache.lengths)
        entering: list[int] = []
        if cache.lengths and free < _FREE * cache.rows:
            return entering
        tokens = 0
        while waiting:
            outputs = len(self.requests[waiting[0]].seeds)
            tokens += len(self.requests[waiting[0]].prompt) - self.shared
            if outputs > free or (entering and tokens > _PREFILL):
                break
            free -= outputs
            entering.append(waiting.popleft())
        return entering

    def _enter(
        self, cache: DecodeCache, prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[_Output]]
    ) -> Tensor:
        """Compute prompts, let their outputs enter, and return the logits of their first tokens, (outputs, V)."""
        ids = torch.tensor([[token for prompt in prompts for token in prompt]], device=self.device)
        positions = [self.shared + place for prompt in prompts for place in range(len(prompt))]
        ends = list(pairwise(accumulate(map(len, prompts), initial=0)))
        segments = [Segment(start, end, num_predict=1) for start, end in ends]
        kv_out: dict[int, KeyValues] = {}
        context = PackedContext(segments, cache.prefix, kv_out)
        logits = self.backbone.logits(
            self.backbone.packed_hidden(ids, torch.tensor([positions], device=self.device), context)
        )
        counts = list(map(len, outputs))
        cache.enter(kv_out, list(zip(segments, counts, strict=True)))
        return logits.repeat_interleave(torch.tensor(counts, device=self.device), 0, output_size=sum(counts))

    def _write(self, outputs: Sequence[_Output], logits: Tensor) -> None:
        """Add to each output the token that its logits, (outputs, V), and its next draw give."""
        tokens = self.sampler(logits, (output.draws[len(output.written)] for output in outputs))
        for output, token in zip(outputs, tokens, strict=True):
            output.last = token
            ended = self.is_end(output.key, len(output.written) + 1, token)
            if not ended:
                output.written.append(token)
            output.done = ended or len(output.written) == self.max_new_tokens


def _order(done: Sequence[bool]) -> list[int]:
    """Return the rows that go on, the last ones in the places of those that are done."""
    order = list(range(len(done)))
    for row in reversed(range(len(done))):
        if done[row]:
            last = order.pop()
            if row < len(order):
                order[row] = last
    return order
