"""An optimizer step whose outputs are sampled when it is taken: its prompts, and later the micro-batches of outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from guardreasoner.model.batch import Example, Step, StepCollator


@dataclass
class PromptStep(Step):
    """The prompts of one optimizer step of all processes.

    Args:
        batches: micro-batches of the outputs of this process; empty until :meth:`fill`.
        tokens: tokens of the outputs in ``batches`` over all processes; 0 until then.
        examples: prompts of the step over all processes.
        counted: as in :class:`guardreasoner.model.batch.Step`.
        prompts: the prompts, without completions.
        collator: divides outputs into micro-batches.
    """

    prompts: Sequence[Example] = ()
    collator: StepCollator = field(default_factory=lambda: StepCollator(0, 1))

    def fill(self, sampled: Sequence[Example], device: torch.device) -> None:
        """Set the micro-batches.

        Args:
            sampled: prompts with their sampled outputs, of all processes; at least one.
            device: where the tensors are allocated.
        """
        made = self.collator(sampled).to(device)
        self.batches, self.tokens, self.counted = made.batches, made.tokens, made.counted


@dataclass
class PromptCollator:
    """Make a :class:`PromptStep` of the prompts that the sampler draws.

    Args:
        collator: divides the outputs into micro-batches, for any process.
        rank: index of this process.
        world: number of processes that share the step.
    """

    collator: StepCollator
    rank: int = 0
    world: int = 1

    def __call__(self, prompts: Sequence[Example]) -> PromptStep:
        """Return the step; each process gets all prompts and samples the outputs of its share."""
        own = StepCollator(
            self.collator.padding,
            self.collator.micro_batch_size,
            self.collator.collate,
            self.rank,
            self.world,
            self.collator.tokens,
        )
        return PromptStep([], 0, len(prompts), 0, tuple(prompts), own)
