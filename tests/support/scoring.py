"""Requests for the scores of labels, and the scores that full logits give."""

from collections.abc import Sequence

import torch

from guardreasoner.generators import ScoreRequest
from guardreasoner.model.backbone import Backbone
from tests.support.tiny import TinySource, naive_logps

LABELS = ("harm", "harmful", "harmful intent", "unharmful")
"""Labels of which some are prefixes of others."""


def label_requests(backbone: Backbone, count: int) -> list[ScoreRequest]:
    """Return requests of very different lengths, each with one continuation a label after the same reasoning."""
    prompt_tokenizer = backbone.prompt_tokenizer
    requests = []
    for number, record in enumerate(TinySource().records("train")[:count]):
        reasoning = "It is so. " * (1 + 3 * (number % 4))
        texts = [f"{reasoning}\n\nAnswers:\nRequest: {label}" for label in LABELS]
        requests.append(
            ScoreRequest(
                record.id,
                tuple(prompt_tokenizer.prompt(record)),
                tuple(tuple(prompt_tokenizer.completion(text)) for text in texts),
                prompt_tokenizer.text(record),
                tuple(text + prompt_tokenizer.tokenizer.eos_token for text in texts),
            )
        )
    return requests


@torch.inference_mode()
def naive_scores(backbone: Backbone, request: ScoreRequest) -> Sequence[float]:
    """Return the scores of a request, each from the full logits of one row without padding."""
    return [
        float(naive_logps(backbone.network, request.prompt, ids).sum()) if ids else 0.0 for ids in request.continuations
    ]
