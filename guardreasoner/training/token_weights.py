"""Weights of reasoning tokens and of answer tokens in the loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from guardreasoner.errors import InputError
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.workflow.ranges import NotNegative


@dataclass(frozen=True)  # no slots: the command line writes defaults from __dict__
class TokenWeights:
    """Weights of the tokens of a completion, by whether they belong to the reasoning or to the answer.

    Each token's log-probability is multiplied by its weight, log π(y) = Σ_t w_t · log π(y_t), in the policy and in the
    reference. So R-SFT minimizes Σ_t w_t · NLL(y_t) / tokens, and HS-DPO has weighted sums in the margin and in
    NLL(chosen). Tokens are counted without weights.

    Args:
        reasoning: weight of a token of the reasoning, ≥ 0; in an output without an answer block, of all tokens.
        answer: weight of a token of the answer block, ≥ 0; also of the end token and the space before the block.

    Raises:
        InputError: a weight is out of range.
    """

    reasoning: NotNegative = 1.0
    answer: NotNegative = 1.0

    def __post_init__(self) -> None:
        for name in ("reasoning", "answer"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"token_weights: {name} must be a number of at least 0, got {value}")

    def of(
        self, tokenizer: PromptTokenizer, texts: Sequence[str], completions: Sequence[Sequence[int]]
    ) -> tuple[tuple[float, ...], ...]:
        """Return the weight of each token of each completion; empty if all are 1.

        A token that crosses the border belongs to the answer.

        Args:
            tokenizer: tokenizer of the model that is trained.
            texts: the completions as text.
            completions: the same as token ids, with their end token unless they were truncated.

        Raises:
            InputError: in the model's format, the reasoning is not what an output begins with.
        """
        if self.reasoning == self.answer == 1:
            return ()
        reasoning = [tokenizer.format.reasoning(text) for text in texts]
        if not all(text.startswith(part) for text, part in zip(texts, reasoning, strict=True)):
            name = type(tokenizer.format).__name__
            raise InputError(f"data.token_weights: an output in the format {name} does not begin with its reasoning")
        rows = []
        for text, part, ids, own in zip(texts, reasoning, completions, tokenizer.completions(reasoning), strict=True):
            has_answer = part != text.rstrip()
            start = _shared_start(ids, own[:-1]) if has_answer else len(ids)
            rows.append((self.reasoning,) * start + (self.answer,) * (len(ids) - start))
        return tuple(rows)


def _shared_start(ids: Sequence[int], others: Sequence[int]) -> int:
    """Return how many tokens two sequences share at their start."""
    pairs = enumerate(zip(ids, others, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(ids), len(others)))
