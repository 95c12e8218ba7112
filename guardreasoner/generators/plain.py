"""Sampling through transformers' forward pass and cache, in padded batches: for any network, and to compare with."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.parallel import chunks, parallel_map
from guardreasoner.generators.reserved_cache import reserved_cache
from guardreasoner.generators.token_sampler import TokenSampler, draws, end_tokens
from guardreasoner.model.backbone import Backbone

_LEAVE = 0.8
"""Rows are moved together once this share of them is still running: moving costs a copy of the cache."""


class PlainGenerator(Generator):
    """Generate with a loaded backbone: the prompt is computed once for all its outputs, finished rows leave the batch.

    Each output is drawn from a RNG of its own, so neither its neighbours nor the order of requests changes it; chunks
    of ``batch_size`` outputs are computed together, and the same chunk always gives the same text.

    Args:
        backbone: the model.
        max_new_tokens: longest output, its end token included.
        temperature: 0 is greedy.
        top_p: nucleus; 1 is the whole distribution.
        batch_size: outputs computed at once; rounded down to whole requests, at least one.
        workers: batches computed side by side, each on one thread; None: as many as torch has threads on a CPU, where a
            small network cannot keep two threads busy, and 1 on any other device.

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
    ) -> None:
        if max_new_tokens < 1 or batch_size < 1 or (workers is not None and workers < 1):
            raise InputError("generator: max_new_tokens, batch_size and workers must be at least 1")
        self.backbone = backbone
        self.max_new_tokens = max_new_tokens
        self.sampler = TokenSampler(temperature, top_p)
        self.batch_size = batch_size
        self.workers = workers
        self._ends: frozenset[int] = frozenset()

    @property
    def settings(self) -> dict[str, Any]:
        """Return what decides the outputs; batches do so by rounding."""
        return {"max_new_tokens": self.max_new_tokens, **self.sampler.settings, "batch_size": self.batch_size}

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield every request's outputs, chunk by chunk, in the order of the requests."""
        for part in self.parts(requests):
            yield from part

    def parts(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the outputs of one chunk after the other."""
        self.backbone.load()
        self.backbone.eval()
        self._ends = end_tokens(self.backbone)
        whole = list(chunks(requests, lambda first: max(1, self.batch_size // len(first.seeds))))
        yield from parallel_map(self._generate_chunk, whole, self.backbone, self.workers)

    @torch.inference_mode()
    def _generate_chunk(self, chunk: Sequence[Request]) -> list[Completion]:
        network, device = self.backbone.network, next(self.backbone.parameters()).device
        cache = reserved_cache(network.config.get_text_config(), self.max_new_tokens)
        input_ids, mask = _left_padded([request.prompt for request in chunk], self.backbone.prompt_tokenizer.padding)
        logits = self._forward(network, input_ids.to(device), mask.to(device), _positions(mask).to(device), cache)

        outputs = [(request.record_id, index) for request in chunk for index in range(len(request.seeds))]
        drawn = [draws(request, i, self.max_new_tokens) for request in chunk for i in range(len(request.seeds))]
        parents = torch.tensor([row for row, request in enumerate(chunk) for _ in request.seeds])
        cache.batch_select_indices(parents.to(device))
        logits, mask = logits[parents.to(device)], mask[parents].to(device)
        positions = mask.sum(dim=1, keepdim=True)
        rows, alive = list(range(len(outputs))), [True] * len(outputs)
        written: list[list[int]] = [[] for _ in outputs]
        for step in range(self.max_new_tokens):
            tokens = self.sampler(logits, (drawn[row][step] for row in rows))
            for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
                if alive[place] and self._is_end(outputs[row], step + 1, token):
                    alive[place] = False
                elif alive[place]:
                    written[row].append(token)
            if step + 1 == self.max_new_tokens or not any(alive):
                break
            if sum(alive) <= _LEAVE * len(alive):
                going = [place for place, one in enumerate(alive) if one]
                keep = torch.tensor(going, device=device)
                cache.batch_select_indices(keep)
                mask, positions = mask[keep], positions[keep]
                rows, tokens, alive = [rows[n] for n in going], [tokens[n] for n in going], [True] * len(going)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._forward(network, torch.tensor(tokens, device=device)[:, None], mask, positions, cache)
            positions = positions + 1
        return [
            Completion(*output, self.backbone.prompt_tokenizer.decode(ids), completion_tokens=len(ids))
            for output, ids in zip(outputs, written, strict=True)
        ]

    def _forward(self, network: Any, input_ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Return the logits after the last token of each row: (rows, V)."""
        output = network(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _is_end(self, key: tuple[str, int], count: int, token: int) -> bool:
        """Return whether an output (record id and index) has ended whose ``count``-th token is ``token``."""
        return token in self._ends


def _left_padded(prompts: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    input_ids = torch.tensor([[padding] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return input_ids, mask


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
