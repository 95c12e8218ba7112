"""Requests, greedy references and goodness-of-fit checks for tests of generators."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guardreasoner.generators import Generator, Request
from guardreasoner.model.backbone import Backbone
from tests.support.tiny import TinySource


def record_requests(backbone: Backbone, count: int = 6, seeds: Sequence[int] = (0,)) -> list[Request]:
    """Return requests for the first training records, whose prompts differ in length."""
    prompt_tokenizer = backbone.prompt_tokenizer
    records = TinySource(max(24, count)).records("train")[:count]
    return [Request(r.id, tuple(prompt_tokenizer.prompt(r)), prompt_tokenizer.text(r), tuple(seeds)) for r in records]


def texts_by_key(generator: Generator, requests: Sequence[Request]) -> dict[tuple[str, int], str]:
    """Generate and return the texts by record id and index, each of which must come once."""
    items = [((c.record_id, c.index), c.text) for c in generator.generate(requests)]
    texts = dict(items)
    assert len(texts) == len(items)
    return texts


def greedy_ids(backbone: Backbone, request: Request, max_new_tokens: int) -> list[int]:
    """Return the token ids that transformers generates greedily."""
    ids = torch.tensor([request.prompt])
    output = backbone.network.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=0
    )
    return output[0, ids.shape[1] :].tolist()


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the fewest most probable tokens whose total probability reaches ``top_p``; renormalize."""
    nucleus_probabilities, total = torch.zeros_like(probabilities), 0.0
    for token in probabilities.argsort(descending=True).tolist():
        if total >= top_p:
            break
        nucleus_probabilities[token] = probabilities[token]
        total += probabilities[token].item()
    return nucleus_probabilities / nucleus_probabilities.sum()


def chi_square(expected: Mapping[Any, float], observed: Counter[Any]) -> tuple[float, int]:
    """Return the chi-square statistic and its degrees of freedom.

    Values that are expected fewer than five times form one cell.
    """
    assert set(observed) <= {value for value, count in expected.items() if count > 0}
    cells = {value if count >= 5 else "rare": [0.0, 0.0] for value, count in expected.items()}
    for value, count in expected.items():
        cell = cells[value if count >= 5 else "rare"]
        cell[0] += count
        cell[1] += observed[value]
    return sum((seen - count) ** 2 / count for count, seen in cells.values() if count), len(cells) - 1
