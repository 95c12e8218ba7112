"""Examples as token ids, and examples to batches."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Example:
    """One training example as ids: a prompt with one completion (R-SFT), or with a chosen and a rejected one (HS-DPO).

    Args:
        id: record id.
        prompt: token ids.
        completions: token ids of each completion, its end token included.
        weight: α of a pair.
        reference_logps: log π_ref of each completion, in nats, where they were computed before.
    """

    id: str
    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    weight: float = 1.0
    reference_logps: tuple[float, ...] | None = None

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return len(self.prompt) + max(map(len, self.completions))

    @property
    def tokens(self) -> int:
        """Tokens of the prompt and of all completions."""
        return len(self.prompt) + sum(map(len, self.completions))


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens in a packed row; all of them follow the prefix, which is not in the row.

    Args:
        start: place of its first token in the row.
        end: place behind its last.
        above: numbers of the segments that it follows, the first one first.
        num_predict: how many of its last tokens something is predicted from.
    """

    start: int
    end: int
    parents: tuple[int, ...] = ()
    num_predict: int = 0


@dataclass
class Batch:
    """What the network is given at once: R rows of T tokens, and where in them N completion tokens are predicted.

    Sequence ``i`` of example ``e`` is numbered ``i * examples + e``: all chosen ones first, then all rejected ones.

    Args:
        input_ids: (R, T) int64.
        attention_mask: (R, T) int64; None where ``segments`` say what a token sees.
        position_ids: (R, T) int64.
        predictors: (N,) int64, places in the flattened (R · T) hidden states, each just before its target.
        targets: (N,) int64, the completion tokens.
        sequence: (N,) int64, which completion each belongs to.
        sequences: how many completions.
        weight: (examples,) float32, α.
        reference_logps: (sequences,) float64 in nats, or None.
        ids: record ids.
        segments: of a packed row (:mod:`guardreasoner.model.packing`).
        prefix_ids: (tokens,) int64, what all prompts of a packed row begin with, kept out of it; may be empty.
        tokens: prompt and completion tokens of all sequences, whether or not each was computed on its own.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    position_ids: Tensor
    predictors: Tensor
    targets: Tensor
    sequence: Tensor
    sequences: int
    weight: Tensor
    reference_logps: Tensor | None
    ids: list[str] = field(default_factory=list)
    segments: tuple[Segment, ...] | None = None
    prefix_ids: Tensor | None = None
    tokens: int = 0

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """Return the batch with all its tensors on ``device``."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=non_blocking)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


@dataclass
class Step:
    """One whole optimizer step of this process, with the denominators of the step over all processes.

    Args:
        batches: micro-batches, in the order they are computed.
        tokens: completion tokens of the whole step.
        examples: examples of the whole step.
    """

    batches: list[Batch]
    tokens: int
    examples: int
    share: float = 1.0

    def to(self, device: torch.device, non_blocking: bool = False) -> "Step":
        """Return the step with all its tensors on ``device``."""
        return replace(self, batches=[batch.to(device, non_blocking) for batch in self.batches])


class Collator(Protocol):
    """Turns the examples of a micro-batch into tensors.

    Args:
        examples: with as many completions each.
        padding: id that fills rows.
        shared: tokens with which all prompts of the whole step begin; None: find out for these.
    """

    def __call__(self, examples: Sequence[Example], padding: int, shared: int | None = None) -> Batch: ...


def two_row(examples: Sequence[Example], padding: int, shared: int | None = None) -> Batch:
    """Give every completion a row of its own, prompt repeated, padded on the right: the plain, readable reference."""
    rows = [
        (number * len(examples) + place, example.prompt, example.completions[number])
        for number in range(len(examples[0].completions))
        for place, example in enumerate(examples)
    ]
    width = max(len(prompt) + len(completion) for _, prompt, completion in rows)
    input_ids = torch.full((len(rows), width), padding)
    attention_mask = torch.zeros_like(input_ids)
    predictors, targets, sequence = [], [], []
    for row, (number, prompt, completion) in enumerate(rows):
        length = len(prompt) + len(completion)
        input_ids[row, :length] = torch.tensor(prompt + completion)
        attention_mask[row, :length] = 1
        predictors.append(torch.arange(len(prompt) - 1, length - 1) + row * width)
        targets.append(torch.tensor(completion))
        sequence.append(torch.full((len(completion),), number))
    references = [e.reference_logps for e in examples]
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=torch.arange(width).expand(len(rows), width),
        predictors=torch.cat(predictors),
        targets=torch.cat(targets),
        sequence=torch.cat(sequence),
        sequences=len(rows),
        weight=torch.tensor([e.weight for e in examples], dtype=torch.float32),
        reference_logps=reference_column(references),
        ids=[e.id for e in examples],
        tokens=sum(len(prompt) + len(completion) for _, prompt, completion in rows),
    )


_MIN_SHARED_PREFIX = 16
"""Tokens that prompts must share to be computed apart; below, it saves less than it costs."""


def common_prefix_length(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with, 0 where it would not pay; each keeps a last token of its own."""
    if len(prompts) < 2:
        return 0
    most = min(map(len, prompts)) - 1
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))  # in this order all others lie between these
    shared = next((place for place in range(most) if first[place] != last[place]), max(most, 0))
    return shared if shared >= _MIN_SHARED_PREFIX else 0


def reference_column(references: Sequence[tuple[float, ...] | None]) -> Tensor | None:
    """Return stored reference values in the order of a batch's sequences, (sequences,); None where some are missing."""
    known = [r for r in references if r is not None]
    if len(known) < len(references):
        return None
    return torch.tensor(known, dtype=torch.float64).T.reshape(-1)


@dataclass
class StepCollator:
    """Turn the examples of one optimizer step into micro-batches, longest rows together.

    Args:
        padding: id that fills rows.
        micro_batch_size: examples that are computed at once.
        collate: the layout of a micro-batch.
        rank: number of this process; it takes every ``world``-th example.
        world: how many processes share the step.
        tokens: also end a micro-batch before it holds more tokens, each prompt counted once; None: never.
    """

    padding: int
    micro_batch_size: int
    collate: Collator = two_row
    rank: int = 0
    world: int = 1
    tokens: int | None = None

    def __call__(self, examples: Sequence[Example]) -> Step:
        """Return the step; it may hold no micro-batch where there are fewer examples than processes."""
        ordered = sorted(examples, key=lambda example: example.length, reverse=True)
        # a process without an example computes one for nothing, as the others wait for its gradient
        own = ordered[self.rank :: self.world]
        mine = own or ordered[-1:]
        tokens = sum(len(completion) for example in examples for completion in example.completions[:1])
        shared = common_prefix_length([example.prompt for example in mine])
        batches = [self.collate(part, self.padding, shared) for part in self._parts(mine)]
        return Step(batches, tokens, len(examples), float(bool(own)))

    def _parts(self, examples: Sequence[Example]) -> list[list[Example]]:
        parts: list[list[Example]] = [[]]
        for example in examples:
            tokens = sum(one.tokens for one in parts[-1]) + example.tokens
            full = len(parts[-1]) == self.micro_batch_size or (self.tokens is not None and tokens > self.tokens)
            if full and parts[-1]:
                parts.append([])
            parts[-1].append(example)
        return parts
