"""Choice of the next token: greedy, or sampled with a random number that depends on the completion alone."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.generators import Request
from guardreasoner.model.backbone import Backbone

_TOP_K = 32
"""A nucleus of several tokens is first searched among this many of the most probable ones."""


class TokenSampler:
    """Choose one token per row of logits.

    Args:
        temperature: sampling temperature; 0 is greedy decoding.
        top_p: nucleus sampling threshold; 1 samples from the full distribution.

    Raises:
        InputError: raised if a number is out of range.
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
        """Return the sampling parameters by name."""
        return {"temperature": self.temperature, "top_p": self.top_p}

    def __call__(self, logits: Tensor, draws: Iterable[float]) -> list[int]:
        """Return one token per row: the most probable one, or the one that the row's random number selects.

        Args:
            logits: (rows, V).
            draws: one random number per row, uniform in [0, 1).
        """
        if self.temperature == 0:
            return logits.argmax(dim=-1).tolist()
        probabilities = torch.softmax(logits.float() / self.temperature, dim=-1)
        uniforms = torch.from_numpy(np.fromiter(draws, np.float32)).to(logits.device)
        if self.top_p == 1:
            return _inverse_cdf(probabilities, uniforms).tolist()
        # For most rows of a trained guard one token is the nucleus, and for nearly all others a few are. Only the rest
        # is sorted: sorting the full vocabulary for all rows costs more than a small network.
        largest, most_probable = probabilities.max(dim=-1)
        tokens = most_probable.tolist()
        rows = torch.nonzero(largest < self.top_p)[:, 0]
        for width in (min(_TOP_K, probabilities.shape[-1]), probabilities.shape[-1]):
            if not len(rows):
                break
            top, ids = probabilities[rows].topk(width, dim=-1)
            sampled = _sample_nucleus(top, ids, uniforms[rows], self.top_p)
            for row, token in zip(rows.tolist(), sampled.tolist(), strict=True):
                tokens[row] = token
            rows = rows[top.sum(dim=-1) < self.top_p]
        return tokens


def draws(request: Request, index: int, count: int) -> np.ndarray:
    """Return the random numbers of a completion, (count,) float32 in [0, 1).

    A larger ``count`` only appends numbers.
    """
    return np.random.default_rng(int.from_bytes(request.rng_key(index)[:16], "big")).random(count, dtype=np.float32)


def end_tokens(backbone: Backbone) -> frozenset[int]:
    """Return the tokens that end a text, as named by the tokenizer and by the model's generation config."""
    eos = backbone.network.generation_config.eos_token_id
    model_ends: Sequence[int] = eos if isinstance(eos, list) else [] if eos is None else [eos]
    return frozenset([backbone.prompt_tokenizer.end, *model_ends])


def _sample_nucleus(probabilities: Tensor, ids: Tensor, uniforms: Tensor, top_p: float) -> Tensor:
    """Sample one token per row from the nucleus; return (rows,) token ids.

    Args:
        probabilities: (rows, n), in descending order.
        ids: (rows, n) token ids of the probabilities.
        uniforms: (rows,) random numbers in [0, 1).
        top_p: a token belongs to the nucleus if the probabilities before it sum to less than this.
    """
    preceding = probabilities.cumsum(dim=-1) - probabilities
    position = _inverse_cdf(probabilities.masked_fill(preceding >= top_p, 0), uniforms)
    return ids.gather(1, position[:, None])[:, 0]


def _inverse_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Return, per row, the first position whose cumulative probability exceeds uniform × total: (rows,) int64."""
    cumulative = probabilities.cumsum(dim=-1)
    position = torch.searchsorted(cumulative, (uniforms[:, None] * cumulative[:, -1:]), right=True)[:, 0]
    # a product that rounds up to the total must still select a token whose probability is positive
    indices = torch.arange(1, probabilities.shape[1] + 1, device=uniforms.device)
    last_positive = (probabilities > 0).long().mul(indices).amax(1) - 1
    return torch.minimum(position, last_positive)
