"""Sampling with the model in this process: continuous batching without padding."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain, pairwise
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request, Scorer, ScoreRequest, Scores, Watch
from guardreasoner.generators.decode_cache import DecodeCache, without_gaps
from guardreasoner.generators.incremental_scores import IncrementalScorer
from guardreasoner.generators.local_scores import score_packed
from guardreasoner.generators.parallel import chunks, parallel_map, worker_count
from guardreasoner.generators.plain import PlainGenerator
from guardreasoner.generators.text_pieces import TextPieces
from guardreasoner.generators.token_sampler import TokenSampler, draws, end_tokens
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Segment, common_prefix_length
from guardreasoner.model.packed_attention import KeyValues, PackedContext
from guardreasoner.workflow.ranges import Count, NotNegative, PositiveShare

log = logging.getLogger("guardreasoner")

_BATCHES_PER_CHUNK = 8
"""Default size of a chunk, in batches of outputs. Rows fall idle at the end of a chunk, so a chunk should be long."""

_MIN_FREE = 0.25
"""Requests enter once this share of the rows is free. A smaller share would run the network often for a few short
prompts; a larger one would leave many rows idle."""


class LocalGenerator(Generator):
    """Generate with the loaded backbone by continuous batching: when an output ends, another takes its row.

    A prompt is computed once for all its outputs, and the prefix that all prompts of a chunk share is computed once.

    Each output has a RNG of its own, so it does not depend on other outputs, except through rounding. Chunks are
    processed independently, and generating the same chunk again gives the same texts.

    A network that cannot compute packed rows (:attr:`Backbone.supports_packing``) is run by :class:`PlainGenerator`.

    Args:
        backbone: the model.
        max_new_tokens: maximum length of an output, including its end token.
        temperature: sampling temperature; 0 is greedy decoding.
        top_p: nucleus sampling threshold; 1 samples from the full distribution.
        batch_size: outputs computed at once; the outputs of one request always run together, even if they are more.
        max_cache_tokens: bound of a worker's memory: tokens of the longest prompt after the shared prefix for every
            prompt, and ``max_new_tokens`` for every output computed at once. None: no bound besides ``batch_size``. The
            outputs of one request run together even if they exceed it.
        workers: chunks computed in parallel, each on one thread. None: torch's number of threads on a CPU, where a
            small network cannot use two threads, and 1 on other devices.
        chunk: requests per chunk, whose outputs are returned as one group. None: enough for eight batches of outputs,
            at most an equal share of the requests for each worker.

    Raises:
        InputError: raised if a number is out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        max_new_tokens: Count = 2048,
        temperature: NotNegative = 1.0,
        top_p: PositiveShare = 1.0,
        batch_size: Count = 128,
        workers: Count | None = None,
        chunk: Count | None = None,
        max_cache_tokens: Count | None = None,
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
        self.max_cache_tokens = max_cache_tokens
        self._end_tokens: frozenset[int] = frozenset()
        self._logged_fallback = False

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the outputs; batch and chunk sizes do so through rounding."""
        return {**self._plain.settings, "chunk": self.chunk, "max_cache_tokens": self.max_cache_tokens}

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the completions of one chunk after another, in the order of the requests."""
        return self._groups(requests, {})

    def generate_watched(self, requests: Iterable[Request], watches: Mapping[str, Watch]) -> Iterator[Completion]:
        """Yield the completions, and report watched texts token by token unless the network needs padded batches."""
        return chain.from_iterable(self._groups(requests, watches))

    def _groups(self, requests: Iterable[Request], watches: Mapping[str, Watch]) -> Iterator[list[Completion]]:
        self.backbone.load()
        self.backbone.eval()
        if not self.backbone.supports_packing:
            if not self._logged_fallback:
                log.info("generating in padded batches: the attention of this network does not support packed rows")
            self._logged_fallback = True
            yield from self._plain.generate_groups(requests)
            return
        self._end_tokens = end_tokens(self.backbone)
        requests = list(requests)
        share = ceil(len(requests) / worker_count(self.backbone, self.workers))

        def size(first: Request) -> int:
            most = self._chunk_size(len(first.seeds))
            return most if self.chunk else min(most, share)

        request_chunks = list(chunks(requests, size))
        generate = partial(self._generate_chunk, watches=watches)
        yield from parallel_map(generate, request_chunks, self.backbone, self.workers)

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores of each request, in order; what prompts or continuations share is computed once."""
        self.backbone.load()
        self.backbone.eval()
        if self.backbone.supports_packing:
            yield from score_packed(self.backbone, requests, self.workers)
        else:
            yield from self._plain.score(requests)

    def incremental_scorer(self) -> Scorer:
        """Return a scorer that keeps the keys and values of the prompt, if the network supports packed rows."""
        self.backbone.load()
        self.backbone.eval()
        return IncrementalScorer(self.backbone) if self.backbone.supports_packing else self.score

    @property
    def scores_in_one_pass(self) -> bool:
        """Whether the network is loaded and supports packed rows."""
        return self.backbone.supports_packing

    def group_size(self, outputs: int) -> int:
        """Return the number of requests in a chunk."""
        return self._chunk_size(outputs) if self.backbone.supports_packing else self._plain.group_size(outputs)

    def _chunk_size(self, outputs: int) -> int:
        return self.chunk or max(1, _BATCHES_PER_CHUNK * self.batch_size // outputs)

    def _is_end(self, key: tuple[str, int], count: int, token: int) -> bool:
        """Return whether an output has ended.

        Args:
            key: record id and index of the output.
            count: tokens of the output so far, including the last one.
            token: the last token; it is not part of the text if it is an end token.
        """
        return token in self._end_tokens

    def _generate_chunk(self, chunk: Sequence[Request], watches: Mapping[str, Watch]) -> list[Completion]:
        decoder = _ChunkDecoder(
            self.backbone,
            chunk,
            self.batch_size,
            self.max_cache_tokens,
            self.max_new_tokens,
            self.sampler,
            self._is_end,
            watches,
        )
        return [
            Completion(
                *output.key,
                "" if output.abandoned else self.backbone.prompt_tokenizer.decode(output.tokens),
                "abandoned" if output.abandoned else "stop" if output.end else "length",
                completion_tokens=len(output.tokens),
                ids=output.ids,
            )
            for output in decoder.run()
        ]


def prefill_tokens(*, on_cpu: bool) -> int:
    """Return the most prompt tokens computed in one row, except that a longer prompt has a row of its own.

    The number bounds the memory for activations. On a CPU, the activations of longer rows would leave its caches.
    """
    return 2_048 if on_cpu else 16_384


@dataclass(slots=True)
class _Output:
    """State of one output during decoding.

    Args:
        key: record id and index.
        draws: one random number for each of its tokens, (max_new_tokens,) float32.
        prompt_length: tokens of its prompt after the shared prefix.
        tokens: generated tokens without the end token.
        done: whether it has ended or reached the maximum length.
        last: its last token.
        abandoned: whether it has ended because its watch no longer wants it.
        end: the token that ended it, if it has ended by itself.
    """

    key: tuple[str, int]
    draws: np.ndarray
    prompt_length: int
    tokens: list[int] = field(default_factory=list)
    done: bool = False
    last: int = -1
    abandoned: bool = False
    end: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """All generated tokens, with the end token."""
        return (*self.tokens, *self.end)


_Prompt = tuple[Sequence[int], int]
"""Token ids of a prompt after the shared prefix, and the number of its outputs."""


class _ChunkDecoder:
    """Decodes the outputs of a chunk of requests.

    Args:
        backbone: the model.
        requests: requests of the chunk.
        batch_size: outputs computed at once, unless one request has more.
        max_cache_tokens: most tokens in the cache, unless one request needs more; None: no bound.
        max_new_tokens: maximum length of an output.
        sampler: chooses tokens.
        is_end: takes an output's key, its number of tokens and its last token; returns whether it has ended.
        watches: watch of the first output of some requests, by record id.
    """

    def __init__(
        self,
        backbone: Backbone,
        requests: Sequence[Request],
        batch_size: int,
        max_cache_tokens: int | None,
        max_new_tokens: int,
        sampler: TokenSampler,
        is_end: Callable[[tuple[str, int], int, int], bool],
        watches: Mapping[str, Watch],
    ) -> None:
        self.backbone = backbone
        self.requests = requests
        self.batch_size = batch_size
        self.max_cache_tokens = max_cache_tokens
        self.max_new_tokens = max_new_tokens
        self.sampler = sampler
        self.is_end = is_end
        self.watched = {
            (request.record_id, 0): (watches[request.record_id], TextPieces(backbone.prompt_tokenizer.decode))
            for request in requests
            if request.record_id in watches
        }
        self.device = next(backbone.parameters()).device
        self.prefix_length = common_prefix_length([request.prompt for request in requests])

    @torch.inference_mode()
    def run(self) -> list[_Output]:
        """Return every request's outputs, in the order of the requests."""
        outputs_by_request = [
            [
                _Output((r.record_id, n), draws(r, n, self.max_new_tokens), self._own_length(r))
                for n in range(len(r.seeds))
            ]
            for r in self.requests
        ]
        prefix = self.backbone.encode_prefix(
            torch.tensor(self.requests[0].prompt[: self.prefix_length], device=self.device).long()
        )
        cache = DecodeCache(prefix, self.device)
        # prompts of similar length run together, because a step costs what its longest row costs
        waiting = deque(sorted(range(len(self.requests)), key=lambda n: len(self.requests[n].prompt), reverse=True))
        active: list[_Output] = []
        while waiting or active:
            if entering := self._take_entering(waiting, active, cache.prompts):
                suffixes = (self.requests[n].prompt[self.prefix_length :] for n in entering)
                counts = (len(outputs_by_request[n]) for n in entering)
                logits = self._prefill(cache, list(zip(suffixes, counts, strict=True)))
                updated = [output for n in entering for output in outputs_by_request[n]]
                active += updated
            else:
                positions = cache.advance()
                ids = torch.tensor([[output.last] for output in active], device=self.device)
                logits = self.backbone.logits(self.backbone.next_hidden(ids, positions, cache))
                updated = active
            self._append_tokens(updated, logits)
            if self.watched:
                self._report(updated)
            order = without_gaps([not output.done for output in active])
            cache.keep(order)
            active = [active[row] for row in order]
        return [output for outputs in outputs_by_request for output in outputs]

    def _own_length(self, request: Request) -> int:
        """Return the number of tokens of a prompt after the shared prefix."""
        return len(request.prompt) - self.prefix_length

    def _take_entering(self, waiting: deque[int], active: Sequence[_Output], prompts: int) -> list[int]:
        """Remove and return the indices of the requests that enter now; none if too few rows are free.

        Args:
            waiting: indices of requests, the longest first.
            active: the outputs in the cache.
            prompts: number of prompts in the cache.
        """
        if not waiting:
            return []
        longest = max([self._own_length(self.requests[waiting[0]]), *(output.prompt_length for output in active)])
        most = self.max_cache_tokens or sys.maxsize
        rows = min(self.batch_size, most // (longest // len(self.requests[waiting[0]].seeds) + self.max_new_tokens))
        if active and rows - len(active) < _MIN_FREE * rows:
            return []
        entering: list[int] = []
        outputs = len(active)
        while waiting:
            outputs += len(self.requests[waiting[0]].seeds)
            prompts += 1
            fits = outputs <= rows and prompts * longest + outputs * self.max_new_tokens <= most
            if not fits and (active or entering):
                break
            entering.append(waiting.popleft())
        return entering

    def _prefill(self, cache: DecodeCache, prompts: Sequence[_Prompt]) -> Tensor:
        """Compute prompts and add a cache row for each of their outputs.

        Args:
            cache: cache of the active outputs.
            prompts: token ids of each prompt after the shared prefix, and the number of its outputs.

        Returns:
            The logits of the first token of each output, (outputs, V).
        """
        coming_prompts, coming_outputs = len(prompts), sum(count for _, count in prompts)
        logits = []
        for row in self._prefill_rows(prompts):
            counts = [count for _, count in row]
            coming_prompts -= len(row)
            coming_outputs -= sum(counts)
            segments, kv_out, first_logits = self._prefill_row([suffix for suffix, _ in row], cache)
            cache.enter(kv_out, list(zip(segments, counts, strict=True)), (coming_prompts, coming_outputs))
            repeats = torch.tensor(counts, device=self.device)
            logits.append(first_logits.repeat_interleave(repeats, 0, output_size=sum(counts)))
        return torch.cat(logits)

    def _prefill_rows(self, prompts: Sequence[_Prompt]) -> Iterator[list[_Prompt]]:
        """Yield the prompts in rows of limited length."""
        most = prefill_tokens(on_cpu=self.device.type == "cpu")
        row: list[_Prompt] = []
        tokens = 0
        for suffix, count in prompts:
            if row and tokens + len(suffix) > most:
                yield row
                row, tokens = [], 0
            row.append((suffix, count))
            tokens += len(suffix)
        yield row

    def _prefill_row(
        self, suffixes: Sequence[Sequence[int]], cache: DecodeCache
    ) -> tuple[list[Segment], dict[int, KeyValues], Tensor]:
        """Compute prompts in one packed row.

        Returns:
            The segment of each prompt; keys and values by layer; the logits after each prompt, (prompts, V).
        """
        ids = torch.tensor([[token for suffix in suffixes for token in suffix]], device=self.device)
        positions = [self.prefix_length + offset for suffix in suffixes for offset in range(len(suffix))]
        bounds = pairwise(accumulate(map(len, suffixes), initial=0))
        segments = [Segment(start, end, num_predict=1) for start, end in bounds]
        kv_out: dict[int, KeyValues] = {}
        context = PackedContext(segments, cache.prefix, kv_out)
        hidden = self.backbone.packed_hidden(ids, torch.tensor([positions], device=self.device), context)
        return segments, kv_out, self.backbone.logits(hidden)

    def _append_tokens(self, outputs: Sequence[_Output], logits: Tensor) -> None:
        """Sample the next token of each output from its logits, (outputs, V)."""
        tokens = self.sampler(logits, (output.draws[len(output.tokens)] for output in outputs))
        for output, token in zip(outputs, tokens, strict=True):
            output.last = token
            ended = self.is_end(output.key, len(output.tokens) + 1, token)
            if ended:
                output.end = (token,)
            else:
                output.tokens.append(token)
            output.done = ended or len(output.tokens) == self.max_new_tokens

    def _report(self, outputs: Sequence[_Output]) -> None:
        """Report the new text of each watched output that has not ended; end those that are no longer wanted."""
        for output in outputs:
            if output.done or output.key not in self.watched:
                continue
            watch, pieces = self.watched[output.key]
            if not watch(pieces.add(output.tokens)):
                output.done = output.abandoned = True
