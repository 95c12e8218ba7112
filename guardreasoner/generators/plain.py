"""Sampling in padded batches with transformers' forward pass and cache, for any network."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request, ScoreRequest, Scores
from guardreasoner.generators.local_scores import score_plain
from guardreasoner.generators.parallel import chunks, parallel_map
from guardreasoner.generators.token_sampler import TokenSampler, draws, end_tokens
from guardreasoner.model.backbone import Backbone
from guardreasoner.workflow.ranges import Count, NotNegative, PositiveShare

_COMPACT_BELOW = 0.8
"""Finished rows are removed once at most this share of the rows is active: removal copies the cache."""


class PlainGenerator(Generator):
    """Generate with the loaded backbone, one padded batch at a time.

    The prompt is computed once for all its completions, and finished rows leave the batch. Each completion has a RNG
    of its own, so it does not depend on other completions or on the order of requests, except through rounding.
    Generating the same chunk of ``batch_size`` completions again gives the same texts.

    Args:
        backbone: the model.
        max_new_tokens: maximum length of a completion, including its end token.
        temperature: sampling temperature; 0 is greedy decoding.
        top_p: nucleus sampling threshold; 1 samples from the full distribution.
        batch_size: completions per batch, rounded down to whole requests but at least one request.
        workers: batches computed in parallel, each on one thread. None: torch's number of threads on a CPU, where a
            small network cannot use two threads, and 1 on other devices.

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
    ) -> None:
        if max_new_tokens < 1 or batch_size < 1 or (workers is not None and workers < 1):
            raise InputError("generator: max_new_tokens, batch_size and workers must be at least 1")
        self.backbone = backbone
        self.max_new_tokens = max_new_tokens
        self.sampler = TokenSampler(temperature, top_p)
        self.batch_size = batch_size
        self.workers = workers
        self._end_tokens: frozenset[int] = frozenset()

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the completions; the batch size does so through rounding."""
        return {"max_new_tokens": self.max_new_tokens, **self.sampler.settings, "batch_size": self.batch_size}

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the completions of one batch after another, in the order of the requests."""
        self.backbone.load()
        self.backbone.eval()
        self._end_tokens = end_tokens(self.backbone)
        batches = list(chunks(requests, lambda first: self.group_size(len(first.seeds))))
        yield from parallel_map(self._generate_batch, batches, self.backbone, self.workers)

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores of each request, in order; each continuation is computed in a row with its prompt."""
        self.backbone.load()
        self.backbone.eval()
        yield from score_plain(self.backbone, requests, self.workers)

    def group_size(self, outputs: int) -> int:
        """Return the number of requests in a batch."""
        return max(1, self.batch_size // outputs)

    @torch.inference_mode()
    def _generate_batch(self, batch: Sequence[Request]) -> list[Completion]:
        network, device = self.backbone.network, next(self.backbone.parameters()).device
        from guardreasoner.generators.reserved_cache import reserved_cache  # imports transformers' models

        cache = reserved_cache(network.config.get_text_config(), self.max_new_tokens)
        input_ids, mask = _left_padded([request.prompt for request in batch], self.backbone.prompt_tokenizer.padding)
        logits = self._forward(network, input_ids.to(device), mask.to(device), _positions(mask).to(device), cache)

        keys = [(request.record_id, index) for request in batch for index in range(len(request.seeds))]
        random_numbers = [
            draws(request, i, self.max_new_tokens) for request in batch for i in range(len(request.seeds))
        ]
        parents = torch.tensor([row for row, request in enumerate(batch) for _ in request.seeds])
        cache.batch_select_indices(parents.to(device))
        logits, mask = logits[parents.to(device)], mask[parents].to(device)
        positions = mask.sum(dim=1, keepdim=True)
        # ``outputs[row]`` is the index, in ``keys``, of the completion in a row of the shrinking batch
        outputs, active = list(range(len(keys))), [True] * len(keys)
        generated: list[list[int]] = [[] for _ in keys]
        ends: list[tuple[int, ...]] = [()] * len(keys)
        for step in range(self.max_new_tokens):
            tokens = self.sampler(logits, (random_numbers[output][step] for output in outputs))
            for row, (output, token) in enumerate(zip(outputs, tokens, strict=True)):
                if active[row] and self._is_end(keys[output], step + 1, token):
                    active[row], ends[output] = False, (token,)
                elif active[row]:
                    generated[output].append(token)
            if step + 1 == self.max_new_tokens or not any(active):
                break
            if sum(active) <= _COMPACT_BELOW * len(active):
                rows = [row for row, is_active in enumerate(active) if is_active]
                selected = torch.tensor(rows, device=device)
                cache.batch_select_indices(selected)
                mask, positions = mask[selected], positions[selected]
                outputs, tokens = [outputs[row] for row in rows], [tokens[row] for row in rows]
                active = [True] * len(rows)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._forward(network, torch.tensor(tokens, device=device)[:, None], mask, positions, cache)
            positions = positions + 1
        return [
            Completion(
                *key,
                self.backbone.prompt_tokenizer.decode(ids),
                "stop" if end else "length",
                completion_tokens=len(ids),
                ids=(*ids, *end),
            )
            for key, ids, end in zip(keys, generated, ends, strict=True)
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
        """Return whether a completion (record id and index) ends with ``token``, its ``count``-th token."""
        return token in self._end_tokens


def _left_padded(prompts: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask, both (rows, longest prompt) int64."""
    width = max(map(len, prompts))
    input_ids = torch.tensor([[padding] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return input_ids, mask


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
