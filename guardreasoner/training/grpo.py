"""Stage 2 with GRPO: sampled outputs, rewarded by their verdicts and compared within the group of one prompt."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.generators import Generator
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch
from guardreasoner.model.packed_attention import SharedPrefix
from guardreasoner.training.checkpoint import require_trained_weights, save_training_state, skipped_steps_of
from guardreasoner.training.group_sampler import VALIDATION, Group, GroupSampler
from guardreasoner.training.grpo_loss import (
    Normalization,
    StepSize,
    advantages,
    clipped_loss,
    is_clipped,
    kl_estimate,
    token_mean,
    unbiased_kl_penalty,
    without_signal,
)
from guardreasoner.training.initial_policy import prepare_reference, turn_dropout_off
from guardreasoner.training.prompt_data import PromptDataModule
from guardreasoner.training.prompt_step import PromptStep
from guardreasoner.training.reference import FrozenAdapter, FrozenCopy, FrozenModel
from guardreasoner.training.rewards import Reward, share_right
from guardreasoner.training.sharding import is_sharded
from guardreasoner.training.step import configure_optimizer, take_step
from guardreasoner.workflow.ranges import Count, CountOrZero, NotNegative, Positive, Seed, Several, Share

_GENERATED = "generated_tokens"


class GRPOModule(LightningModule):
    """Group relative policy optimization (DeepSeekMath, arXiv 2402.03300, section 4) with TRL's defaults.

    For each step, the model samples k outputs for each prompt. The advantage of an output is how much higher its reward
    is than the mean of its group, and the loss of a token is −min(ρ · A, clip(ρ) · A) + β · KL. The gradient is that of
    the distribution at the sampling temperature; ``top_p`` below 1 is not corrected for. Dropout is off.

    An output depends on the weights, the seed, the step, its record's id and its index, so a resumed fit samples what
    it would have sampled. Weights that are sharded over processes cannot be sampled from.

    Args:
        backbone: the R-SFT model.
        generator: factory of the engine that samples, called with the backbone: ``LocalGenerator`` or
            ``PlainGenerator``.
        k: outputs per prompt, at least 2.
        reward: reward of an output, a function of its grades such as those in :mod:`guardreasoner.training.rewards`;
            the default is the share of the labelled tasks answered right, and 0 for an unparsed output.
        beta: weight of the divergence from the R-SFT model, ≥ 0; 0 keeps no reference. DeepSeekMath uses 0.04.
        reference: how the frozen R-SFT model is kept, if ``beta`` is above 0: ``FrozenCopy`` or ``FrozenAdapter``;
            None uses ``FrozenAdapter`` for a model that is trained through an adapter and ``FrozenCopy`` for any other.
        unbiased_kl: multiply the divergence by ρ, so that its gradient is unbiased (DeepSeek-V3.2, TRL's default);
            DeepSeekMath does not.
        normalization: weight of a token in the loss: ``token_mean`` (DAPO, TRL's default), ``sequence_mean``
            (DeepSeekMath) or ``constant`` (Dr. GRPO) of :mod:`guardreasoner.training.grpo_loss`.
        scale_advantages: divide advantages by the standard deviation of their group; Dr. GRPO does not.
        clip_low: how far below 1 the ratio of new and sampling probability still counts.
        clip_high: how far above 1 it still counts; None: as far as below. DAPO uses 0.28.
        updates: updates of the weights per step, on the same outputs. With 1, the ratio is 1 and nothing is clipped.
        seed: seed of the outputs.
        optimizer: function of the parameters; its ``lr`` is the peak of the cosine schedule.
        warmup: share of the updates with a linear increase of the learning rate.
        max_grad_norm: limit of the gradient norm; 0 disables clipping.
        max_skipped_steps: updates with a loss or gradient that is not finite that are skipped, counted and logged as
            ``train/skipped_steps``; one more stops the run.

    Raises:
        InputError: a number is out of range, or the engine cannot be used. Raised when a run starts if the data are not
            those of ``PromptDataModule`` or the weights are sharded.
    """

    LOGGED = frozenset(
        {
            *(f"train/{name}" for name in ("loss", "policy_loss", "kl", "clipped", "grad_norm", "skipped_steps")),
            "train/generated_tokens",
            *(
                f"{split}/{name}"
                for split in ("train", "val")
                for name in ("reward", "unparsed", "length", "no_signal")
            ),
        }
    )
    """Names of the values that a fit logs.

    ``reward``, ``unparsed`` (share) and ``length`` (tokens) are means over outputs; ``no_signal`` is the share of
    groups whose rewards are all equal; ``kl`` is in nats per token; ``clipped`` is the share of tokens whose ratio has
    left its range; ``generated_tokens`` counts those of all steps so far.
    """

    def __init__(
        self,
        backbone: Backbone,
        generator: Callable[[Backbone], Generator] = lambda backbone: LocalGenerator(backbone),
        k: Several = 8,
        reward: Reward = share_right,
        beta: NotNegative = 0.0,
        reference: FrozenModel | None = None,
        unbiased_kl: bool = True,
        normalization: Normalization = token_mean,
        scale_advantages: bool = True,
        clip_low: Share = 0.2,
        clip_high: Positive | None = None,
        updates: Count = 1,
        seed: Seed = 0,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(
            parameters, lr=1e-6, weight_decay=0.0, fused=True
        ),
        warmup: Share = 0.0,
        max_grad_norm: NotNegative = 1.0,
        max_skipped_steps: CountOrZero = 0,
    ) -> None:
        super().__init__()
        high = clip_low if clip_high is None else clip_high
        for name, value, least in (("beta", beta, 0), ("clip_low", clip_low, 0), ("clip_high", high, 0)):
            if not (math.isfinite(value) and value >= least):
                raise InputError(f"model.{name} must be a number of at least {least}, got {value}")
        if updates < 1:
            raise InputError(f"model.updates must be at least 1, got {updates}")
        if reference is not None and beta == 0:
            raise InputError(
                "model.reference: without effect at model.beta 0", "set model.beta above 0, or leave it out"
            )
        self.automatic_optimization = False
        self.backbone = backbone
        self.sampler = GroupSampler(generator(backbone), k, seed, reward)
        self.beta = beta
        self.reference = reference
        self.unbiased_kl = unbiased_kl
        self.normalization = normalization
        self.scale_advantages = scale_advantages
        self.clip = (clip_low, high)
        self.updates = updates
        self.optimizer = optimizer
        self.warmup = warmup
        self.max_grad_norm = max_grad_norm
        self.max_skipped_steps = max_skipped_steps
        self.skipped_steps = 0
        self.generated_tokens = 0
        self.strict_loading = False  # frozen weights are not in a checkpoint; require_trained_weights checks the others

    def setup(self, stage: str) -> None:
        """Check that the data are prompts with gold labels."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, PromptDataModule):
            raise InputError(f"data: GRPOModule needs PromptDataModule, got {type(data).__name__}")

    def configure_model(self) -> None:
        """Load the weights."""
        self.backbone.load()

    def on_fit_start(self) -> None:
        """Prepare the reference from the R-SFT model, which the policy of a resumed run no longer is."""
        if is_sharded(self.trainer):
            raise InputError(
                "trainer.strategy: GRPOModule cannot sample from sharded weights", "use configs/trainer/ddp.yaml"
            )
        if self.beta:
            if self.reference is None:
                self.reference = FrozenAdapter() if self.backbone.has_adapter else FrozenCopy()
            prepare_reference(self.reference, self.backbone, [], self.trainer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return optimizer and schedule."""
        return configure_optimizer(self, self.optimizer, self.warmup, self.updates)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the trained weights and the counts; outputs are sampled again."""
        save_training_state(self, checkpoint)
        checkpoint[_GENERATED] = self.generated_tokens

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the weights of a checkpoint and continue its counts."""
        require_trained_weights(self, checkpoint)
        self.skipped_steps = skipped_steps_of(checkpoint)
        self.generated_tokens = int(checkpoint.get(_GENERATED, 0))

    def training_step(self, step: PromptStep, index: int) -> None:
        """Sample the outputs of one step, then update the weights once or several times on them."""
        groups = self._sampled(step, index)
        self.generated_tokens += sum(group.tokens for group in groups)
        self._log_groups("train", groups)
        self.log("train/generated_tokens", float(self.generated_tokens))
        rewards = _rewards(groups)
        kept = torch.ones(len(groups), dtype=torch.bool) if self.beta else ~without_signal(rewards)
        kept[0] |= not kept.any()  # an update needs a batch, also one whose gradient is 0
        values = advantages(rewards, self.scale_advantages).tolist()
        examples = [group.example(values[place]) for place, group in enumerate(groups) if kept[place]]
        step.fill(examples, self.device)
        loss_function = self._loss_function(groups)
        totals: dict[str, float] = {}
        for _ in range(self.updates):
            turn_dropout_off(self.backbone)  # the engine turns activation checkpointing off too
            for name, value in take_step(self, step, loss_function).items():
                totals[name] = totals.get(name, 0.0) + float(value) / self.updates
        for name, total in totals.items():
            self.log(f"train/{name}", total, prog_bar=name == "loss")

    def validation_step(self, step: PromptStep, index: int) -> None:
        """Log the rewards of outputs of held-out prompts."""
        self._log_groups("val", self._sampled(step, VALIDATION))

    def _sampled(self, step: PromptStep, index: int) -> list[Group]:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return self.sampler.sample(step.prompts, data.labels, index, self.trainer)

    def _log_groups(self, split: str, groups: Sequence[Group]) -> None:
        outputs = len(groups) * self.sampler.k
        rewards = _rewards(groups)
        values = {
            "reward": rewards.mean().item(),
            "unparsed": sum(sum(group.unparsed) for group in groups) / outputs,
            "length": sum(group.length for group in groups) / outputs,
            "no_signal": without_signal(rewards).double().mean().item(),
        }
        for name, value in values.items():
            self.log(
                f"{split}/{name}",
                value,
                batch_size=len(groups),
                prog_bar=name == "reward",
                sync_dist=split == "val",
            )

    def _loss_function(self, groups: Sequence[Group]) -> Callable[[Batch, SharedPrefix | None], dict[str, Tensor]]:
        """Return the function of a micro-batch that gives its contribution to each value of the step."""
        size = StepSize(
            tokens=sum(group.length for group in groups),
            outputs=len(groups) * self.sampler.k,
            max_new_tokens=self.sampler.max_new_tokens,
        )
        temperature = self.sampler.temperature
        # By the records of a micro-batch; the first update, which runs before any change, sets them.
        sampled_logps: dict[tuple[str, ...], Tensor] = {}
        reference_logps: dict[tuple[str, ...], Tensor] = {}

        def contributions(batch: Batch, prefix: SharedPrefix | None) -> dict[str, Tensor]:
            key = tuple(batch.ids)
            logps = self.backbone(batch, prefix, temperature)
            weight = self.normalization(batch.lengths, size).to(logps)[batch.sequence]
            advantage = batch.weight.to(logps)[batch.sequence]
            sampled = sampled_logps.setdefault(key, logps.detach())
            compared = (logps, sampled, advantage, *self.clip)
            loss = (weight * clipped_loss(*compared)).sum()
            values = {"policy_loss": loss, "clipped": is_clipped(*compared).sum() / size.tokens}
            if self.reference is not None:
                if key not in reference_logps:
                    reference_logps[key] = self.reference.token_logps(batch, temperature).to(logps)
                kl = kl_estimate(logps, reference_logps[key])
                penalty = unbiased_kl_penalty(kl, logps, sampled) if self.unbiased_kl else kl
                loss = loss + self.beta * (weight * penalty).sum()
                values["kl"] = kl.sum() / size.tokens
            return {"loss": loss, **values}

        return contributions


def _rewards(groups: Sequence[Group]) -> Tensor:
    """Return the rewards of all outputs, (E, k) in float64."""
    return torch.tensor([group.rewards for group in groups], dtype=torch.float64)
