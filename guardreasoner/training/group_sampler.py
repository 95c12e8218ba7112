"""Sample k outputs for each prompt of a step with a local engine, and reward them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.plain import PlainGenerator
from guardreasoner.mining.grading import grade_labels
from guardreasoner.model.batch import Example
from guardreasoner.training.rewards import Reward, is_unparsed

_STEPS = 2**32
"""More steps than a run can have."""
VALIDATION = -1
"""The step of the outputs of held-out prompts."""


@dataclass(frozen=True)
class Group:
    """The outputs of one prompt.

    Args:
        prompt: the prompt, without completions.
        outputs: token ids of each of the k outputs, with the end token if it has ended.
        rewards: reward of each output.
        unparsed: whether each output has no verdict for a task with a gold label.
        tokens: generated tokens, end tokens not counted, as mining counts them.
    """

    prompt: Example
    outputs: tuple[tuple[int, ...], ...]
    rewards: tuple[float, ...]
    unparsed: tuple[bool, ...]
    tokens: int

    @property
    def length(self) -> int:
        """Tokens of all outputs."""
        return sum(map(len, self.outputs))

    def example(self, advantages: Sequence[float]) -> Example:
        """Return the prompt with its outputs, each with its advantage as weight."""
        return Example(self.prompt.id, self.prompt.prompt, self.outputs, tuple(advantages))


class GroupSampler:
    """Samples and rewards groups of outputs.

    An output depends on the weights, the seed, the step, its record's id and its index, and on nothing else but
    rounding: not on the other prompts of its batch, nor on the process that computes it.

    Args:
        engine: the engine, over the model that is trained.
        k: outputs per prompt.
        seed: seed of the outputs.
        reward: the reward of an output, given its grades.

    Raises:
        InputError: the engine returns no token ids, or always the same output; or k is below 2.
    """

    def __init__(self, engine: Generator, k: int, seed: int, reward: Reward) -> None:
        if not isinstance(engine, LocalGenerator | PlainGenerator):
            raise InputError(
                f"model.generator: expected an engine that gives token ids, got {type(engine).__name__}",
                "use guardreasoner.LocalGenerator",
            )
        if engine.sampler.temperature == 0:
            raise InputError("model.generator.temperature must be above 0: greedy outputs of a prompt are all the same")
        if k < 2:
            raise InputError(f"model.k must be at least 2, got {k}: one output has no group to be compared with")
        self.engine = engine
        self.k = k
        self.seed = seed
        self.reward = reward

    @property
    def temperature(self) -> float:
        """Sampling temperature."""
        return self.engine.sampler.temperature

    @property
    def max_new_tokens(self) -> int:
        """Most tokens of an output."""
        return self.engine.max_new_tokens

    def sample(
        self, prompts: Sequence[Example], labels: Mapping[str, Mapping[str, str]], step: int, trainer: Any
    ) -> list[Group]:
        """Return the group of each prompt, in order; several processes share the work.

        Args:
            prompts: prompts with distinct ids.
            labels: gold labels by record id and task.
            step: index of the optimizer step, or ``VALIDATION``.
            trainer: the trainer.
        """
        # Seeds of rollouts are smaller, so the outputs that made mining choose a record are not sampled again.
        seeds = ((self.seed + 1) * _STEPS + step + 1,) * self.k
        own = prompts[trainer.global_rank :: trainer.world_size]
        found: dict[str, list[Completion]] = defaultdict(list)
        device = next(self.engine.backbone.parameters()).device
        with torch.autocast(device.type, enabled=False):  # of a trainer with mixed precision; mining has none either
            for completion in self.engine.generate(Request(p.id, p.prompt, "", seeds) for p in own):
                found[completion.record_id].append(completion)
        groups = [self._group(prompt, found[prompt.id], labels[prompt.id]) for prompt in own]
        by_id = {group.prompt.id: group for group in _gathered(groups, trainer)}
        return [by_id[prompt.id] for prompt in prompts]

    def _group(self, prompt: Example, completions: Sequence[Completion], labels: Mapping[str, str]) -> Group:
        ordered = sorted(completions, key=lambda completion: completion.index)
        format = self.engine.backbone.prompt_tokenizer.format
        grades = [grade_labels(labels, completion.text, format.tasks, format=format) for completion in ordered]
        return Group(
            prompt,
            tuple(completion.ids for completion in ordered),
            tuple(self.reward(grade) for grade in grades),
            tuple(map(is_unparsed, grades)),
            sum(completion.completion_tokens or 0 for completion in ordered),
        )


def _gathered(groups: list[Group], trainer: Any) -> list[Group]:
    """Return the groups of all processes."""
    if trainer.world_size == 1:
        return groups
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, groups)
    return [group for part in parts for group in part]
