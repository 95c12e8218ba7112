"""Training examples as token ids, and their collation into batches.

Shapes: R rows of T tokens, N completion tokens, B completions, E examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with its completions as token ids: one in R-SFT, chosen and rejected in HS-DPO, sampled ones in GRPO.

    Args:
        id: record id.
        prompt: token ids.
        completions: token ids of each completion, including its end token unless the output was truncated.
        weights: weight of each completion in the loss; empty means 1 for all. Both completions of a pair carry its α, a
            sampled one its advantage.
        reference_logps: log π_ref of each completion in nats, None if not computed yet.
        token_weights: factor of the log-probability of each token of each completion; empty means 1 for all.
    """

    id: str
    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...] = ()
    reference_logps: tuple[float, ...] | None = None
    token_weights: tuple[tuple[float, ...], ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest completion, if there is one."""
        return len(self.prompt) + max(map(len, self.completions), default=0)

    @property
    def tokens(self) -> int:
        """Tokens of the prompt and all completions; the prompt counts once."""
        return len(self.prompt) + sum(map(len, self.completions))

    def weight_of(self, number: int) -> float:
        """Return the weight of completion ``number``."""
        return self.weights[number] if self.weights else 1.0

    def token_weights_of(self, number: int) -> tuple[float, ...]:
        """Return the weight of each token of completion ``number``."""
        return self.token_weights[number] if self.token_weights else (1.0,) * len(self.completions[number])


@dataclass(frozen=True, slots=True)
class Segment:
    """A span of a packed row: a prompt without the shared prefix, or a completion.

    Args:
        start: index of its first token in the row.
        end: index after its last token.
        parents: indices of the segments that it attends to besides itself, in order of their positions.
        num_predict: how many of its last tokens predict a target.
    """

    start: int
    end: int
    parents: tuple[int, ...] = ()
    num_predict: int = 0


@dataclass
class Batch:
    """Input of one forward pass and the positions at which completion tokens are predicted.

    Completions are ordered by their number within the example, then by example: all first completions (chosen), then
    all second ones (rejected), and so on. Examples may have different numbers of completions.

    Args:
        input_ids: (R, T) int64.
        attention_mask: (R, T) int64; None for a packed row, where ``segments`` define the attention.
        position_ids: (R, T) int64.
        predictors: (N,) int64 indices into the flattened (R · T) hidden states; each precedes its target.
        targets: (N,) int64 completion tokens.
        sequence: (N,) int64, the completion that each target belongs to, from 0 to B - 1.
        example: (B,) int64, the example that each completion belongs to, from 0 to E - 1.
        number: (B,) int64, the completion's number within its example; 0 is chosen and 1 rejected in HS-DPO.
        weight: (B,) float32.
        reference_logps: (B,) float64 in nats, or None if some are unknown.
        ids: E record ids.
        segments: spans of a packed row (:mod:`guardreasoner.model.packing`); None for plain rows.
        prefix_ids: (tokens,) int64, shared start of all prompts, which is not part of a packed row; may be empty.
        tokens: prompt and completion tokens of all completions, counted as if each had a row of its own.
        token_weight: (N,) float32 factor of the log-probability of each target in the loss; None: 1 for all.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    position_ids: Tensor
    predictors: Tensor
    targets: Tensor
    sequence: Tensor
    example: Tensor
    number: Tensor
    weight: Tensor
    reference_logps: Tensor | None
    ids: list[str] = field(default_factory=list)
    segments: tuple[Segment, ...] | None = None
    prefix_ids: Tensor | None = None
    tokens: int = 0
    token_weight: Tensor | None = None

    @property
    def sequences(self) -> int:
        """Number of completions, B."""
        return len(self.example)

    @property
    def lengths(self) -> Tensor:
        """(B,) int64 tokens of each completion, including its end token if it has one."""
        return torch.bincount(self.sequence, minlength=self.sequences)

    def weighted(self, token_logps: Tensor) -> Tensor:
        """Return log-probabilities of the targets, (N,) in nats, times their weights."""
        return token_logps if self.token_weight is None else token_logps * self.token_weight

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
    """One optimizer step of this process, with denominators that count all processes.

    Args:
        batches: micro-batches in the order of computation, as many as every other process has.
        tokens: completion tokens of the step over all processes.
        examples: examples of the step over all processes.
        counted: number of micro-batches, from the first, whose losses count; the others only keep this process in step
            with those that have more examples. None: all.
    """

    batches: list[Batch]
    tokens: int
    examples: int
    counted: int | None = None

    def counts(self, index: int) -> bool:
        """Return whether the losses of a micro-batch count."""
        return self.counted is None or index < self.counted

    def to(self, device: torch.device, non_blocking: bool = False) -> "Step":
        """Return the step with all its tensors on ``device``."""
        return replace(self, batches=[batch.to(device, non_blocking) for batch in self.batches])


class Collator(Protocol):
    """Turn the examples of a micro-batch into tensors.

    Args:
        examples: at least one.
        padding: token id that fills rows.
        prefix_length: tokens that all prompts of the step share and that are computed once; None determines it from
            these examples.
    """

    def __call__(self, examples: Sequence[Example], padding: int, prefix_length: int | None = None) -> Batch: ...


def completion_order(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """Return (number, example) of each completion in the order of a batch."""
    return sorted((number, index) for index, e in enumerate(examples) for number in range(len(e.completions)))


def per_completion(examples: Sequence[Example], order: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return the fields of a batch that do not depend on its layout, for completions in ``order``."""
    references: list[float] | None = []
    for number, index in order:
        stored = examples[index].reference_logps
        references = None if references is None or stored is None else [*references, stored[number]]
    completions = [examples[index].completions[number] for number, index in order]
    return {
        "targets": torch.tensor([token for completion in completions for token in completion], dtype=torch.int64),
        "sequence": torch.repeat_interleave(torch.tensor([len(completion) for completion in completions])),
        "example": torch.tensor([index for _, index in order]),
        "number": torch.tensor([number for number, _ in order]),
        "weight": torch.tensor([examples[index].weight_of(number) for number, index in order], dtype=torch.float32),
        "reference_logps": None if references is None else torch.tensor(references, dtype=torch.float64),
        "token_weight": _token_weight(examples, order),
        "ids": [example.id for example in examples],
        "tokens": sum(
            len(examples[index].prompt) + len(examples[index].completions[number]) for number, index in order
        ),
    }


def _token_weight(examples: Sequence[Example], order: Sequence[tuple[int, int]]) -> Tensor | None:
    if not any(example.token_weights for example in examples):
        return None
    rows = [examples[index].token_weights_of(number) for number, index in order]
    return torch.tensor([weight for row in rows for weight in row], dtype=torch.float32)


def two_row(examples: Sequence[Example], padding: int, prefix_length: int | None = None) -> Batch:
    """Give every completion a row of its own with its prompt, padded on the right: the plain reference layout."""
    order = completion_order(examples)
    rows = [(examples[index].prompt, examples[index].completions[number]) for number, index in order]
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    input_ids = torch.full((len(rows), width), padding)
    attention_mask = torch.zeros_like(input_ids)
    predictors = []
    for row, (prompt, completion) in enumerate(rows):
        length = len(prompt) + len(completion)
        input_ids[row, :length] = torch.tensor(prompt + completion)
        attention_mask[row, :length] = 1
        predictors.append(torch.arange(len(prompt) - 1, length - 1) + row * width)
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=torch.arange(width).expand(len(rows), width),
        predictors=torch.cat(predictors),
        **per_completion(examples, order),
    )


_MIN_SHARED_PREFIX = 16
"""Fewest shared prompt tokens for which a separate forward pass saves more than it costs."""


def common_prefix_length(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts share at their start, 0 if too few; each keeps a last token of its own."""
    if len(prompts) < 2:
        return 0
    most = min(map(len, prompts)) - 1
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))  # in sorted order all others lie between these
    shared = next((index for index in range(most) if first[index] != last[index]), max(most, 0))
    return shared if shared >= _MIN_SHARED_PREFIX else 0


@dataclass
class StepCollator:
    """Split the examples of an optimizer step into micro-batches, longest examples first.

    Args:
        padding: token id that fills rows.
        micro_batch_size: most examples per micro-batch.
        collate: layout of a micro-batch.
        rank: index of this process; it takes every ``world``-th example.
        world: number of processes that share the step.
        tokens: most tokens per micro-batch, each prompt counted once; None sets no limit. A longer example is a
            micro-batch of its own.
    """

    padding: int
    micro_batch_size: int
    collate: Collator = two_row
    rank: int = 0
    world: int = 1
    tokens: int | None = None

    def __call__(self, examples: Sequence[Example]) -> Step:
        """Return this process's part of the step; it holds as many micro-batches as that of any other process."""
        ordered = sorted(examples, key=lambda example: example.length, reverse=True)
        shares = [self._split(ordered[rank :: self.world]) for rank in range(self.world)]
        own = shares[self.rank]
        # Processes with fewer micro-batches repeat the shortest example, because the others wait for them: for their
        # gradient (DDP), or in every forward pass (FSDP). The loss of the repetitions does not count.
        repeated = [ordered[-1:]] * (max(map(len, shares)) - len(own))
        tokens = sum(len(completion) for example in examples for completion in example.completions)
        prefix_length = common_prefix_length([example.prompt for example in ordered])
        batches = [self.collate(part, self.padding, prefix_length) for part in (*own, *repeated)]
        return Step(batches, tokens, len(examples), len(own))

    def _split(self, examples: Sequence[Example]) -> list[list[Example]]:
        parts: list[list[Example]] = []
        tokens = 0
        for example in examples:
            tokens += example.tokens
            full = not parts or len(parts[-1]) == self.micro_batch_size
            if full or (self.tokens is not None and tokens > self.tokens):
                parts.append([])
                tokens = example.tokens
            parts[-1].append(example)
        return parts
