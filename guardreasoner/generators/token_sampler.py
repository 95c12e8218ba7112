"""Which token comes next: greedy, or drawn with a random number that depends on the output alone."""

from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.generators import Request
from guardreasoner.model.backbone import Backbone

_FEW = 32
"""Tokens among which the nucleus is looked for first."""


class TokenSampler:
    """Choose tokens from logits.

    Args:
        temperature: 0 is greedy.
        top_p: nucleus; 1 is the whole distribution.

    Raises:
        InputError: a number out of range.
    """

    def __init__(self, temperature: float = 1.0, top_p: float = 1.0) -> None:
        if not (0 <= temperature < float("inf")):
            raise InputError(f"generator: temperature must be 0 (greedy) or above, got {temperature}")
        if not 0 < top_p <= 1:
            raise InputError(f"generator: top_p must be above 0 and at most 1, got {top_p}")
        self.temperature = temperature
        self.top_p = top_p

    @property
    def settings(self) -> dict[str, float]:
        """Return the arguments."""
        return {"temperature": self.temperature, "top_p": self.top_p}

    def __call__(self, logits: Tensor, draws: Iterable[float]) -> list[int]:
        """Return a token per row: the likeliest, or the one whose part of [0, 1) the row's draw falls into.

        The device is waited for once; twice where some row's nucleus is wide.

        Args:
            logits: (rows, V).
            draws: one per row, in [0, 1).
        """
        if self.temperature == 0:
            return logits.argmax(dim=-1).tolist()
        probabilities = torch.softmax(logits.float() / self.temperature, dim=-1)
        drawn = torch.from_numpy(np.fromiter(draws, np.float32)).to(logits.device)
        if self.top_p == 1:
            return _inverse(probabilities, drawn).tolist()
        # nearly always a few tokens hold the nucleus, and sorting a whole vocabulary costs more than a small network
        ordered, ids = probabilities.topk(min(_FEW, probabilities.shape[-1]), dim=-1)
        few = _from_nucleus(ordered, ids, drawn, self.top_p)
        tokens, is_wide = torch.stack([few, (ordered.sum(dim=-1) < self.top_p).long()]).tolist()
        if wide := [row for row, one in enumerate(is_wide) if one]:
            rows = torch.tensor(wide, device=logits.device)
            every = _from_nucleus(*probabilities[rows].sort(dim=-1, descending=True), drawn[rows], self.top_p)
            for row, token in zip(wide, every.tolist(), strict=True):
                tokens[row] = token
        return tokens


def draws(request: Request, index: int, count: int) -> np.ndarray:
    """Return the random numbers of an output, (count,) float32; the first ones are the same whatever ``count``."""
    key = sha256(f"{request.seeds[index]}\0{request.record_id}\0{index}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "big")).random(count, dtype=np.float32)


def end_tokens(backbone: Backbone) -> frozenset[int]:
    """Return the tokens that end a text: the tokenizer's, and those that the model's folder names."""
    own = backbone.network.generation_config.eos_token_id
    more: Sequence[int] = own if isinstance(own, list) else [] if own is None else [own]
    return frozenset([backbone.prompt_tokenizer.end, *more])


def _from_nucleus(ordered: Tensor, ids: Tensor, draws: Tensor, top_p: float) -> Tensor:
    """Return a token per row from those, likeliest first, before which less than ``top_p`` is gathered."""
    before = ordered.cumsum(dim=-1) - ordered
    place = _inverse(ordered.masked_fill(before >= top_p, 0), draws)
    return ids.gather(1, place[:, None])[:, 0]


def _inverse(probabilities: Tensor, draws: Tensor) -> Tensor:
    """Return per row the first token whose cumulative probability exceeds draw × total."""
    cumulative = probabilities.cumsum(dim=-1)
    place = torch.searchsorted(cumulative, (draws[:, None] * cumulative[:, -1:]), right=True)[:, 0]
    # a draw that rounds up to the total must still fall on a token that has probability
    last = (probabilities > 0).long().mul(torch.arange(1, probabilities.shape[1] + 1, device=draws.device)).amax(1) - 1
    return torch.minimum(place, last)
