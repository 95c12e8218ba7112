"""A long instruction in front of prompts, as guards have it that judge by a policy."""

from typing import Any

from guardreasoner.sources.embedded.policies import EmbeddedPolicies

_FEWEST_TOKENS = 8
"""Tokens that a policy has at least: those of two numbered rules."""


def policy_tokens(prompt_tokenizer: Any, count: int) -> list[int]:
    """Return the first ``count`` token ids of the policies of the embedded corpus, one below the other."""
    records = EmbeddedPolicies(train=count // _FEWEST_TOKENS + 1).records("train")
    ids: list[int] = prompt_tokenizer.completion("\n\n".join(record.policy or "" for record in records))
    return ids[:count]


def with_instruction(prompt: list[int], instruction: list[int], prompt_tokenizer: Any) -> list[int]:
    """Return a prompt with an instruction at the start of its text, after the ids of its frame."""
    start = len(prompt_tokenizer.frame[0])
    return [*prompt[:start], *instruction, *prompt[start:]]
