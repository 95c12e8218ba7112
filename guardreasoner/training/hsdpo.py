"""Stage 2, HS-DPO: pairs of hard samples, weighted by difficulty, with an SFT mix (arXiv 2501.18492, section 3.3)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, Step
from guardreasoner.model.log_probs import sequence_logps, sequence_nll
from guardreasoner.model.packed_attention import SharedPrefix
from guardreasoner.training.losses import dpo, hsdpo, margin
from guardreasoner.training.reference import FrozenAdapter, FrozenCopy, Reference
from guardreasoner.training.step import configure, take_step


class HSDPOModule(LightningModule):
    """α · (−log σ(β · margin)) + c · NLL(chosen), mean over the pairs of the optimizer step.

    Dropout is off, LoRA's too, so that the margin is exactly 0 at the first step.

    Args:
        backbone: the R-SFT model.
        reference: how the frozen R-SFT model is kept; None is ``FrozenAdapter`` for a model that is trained through an
            adapter and ``FrozenCopy`` for any other (:mod:`guardreasoner.training.reference`).
        preference: a function of (margin, beta); :func:`guardreasoner.training.losses.dpo` in the paper.
        beta: strength of the pull towards the reference, > 0.
        sft_coef: c, weight of the SFT mix, ≥ 0.
        optimizer: takes parameters; its ``lr`` is the peak of the cosine.
        warmup: share of the steps before the peak; the paper has none.
        max_grad_norm: clips the gradient's norm; 0 never does.

    Raises:
        InputError: beta or sft_coef out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        reference: Reference | None = None,
        preference: Callable[[Tensor, float], Tensor] = dpo,
        beta: float = 0.01,
        sft_coef: float = 2.0,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(
            parameters, lr=5e-6, weight_decay=0.0, fused=True
        ),
        warmup: float = 0.0,
        max_grad_norm: float = 1.0,
    ) -> None:
        super().__init__()
        if not (math.isfinite(beta) and beta > 0):
            raise InputError(f"model.beta must be a number above 0, got {beta}")
        if not (math.isfinite(sft_coef) and sft_coef >= 0):
            raise InputError(f"model.sft_coef must be a number of at least 0, got {sft_coef}")
        self.automatic_optimization = False
        self.backbone = backbone
        self.reference = reference
        self.preference = preference
        self.beta = beta
        self.sft_coef = sft_coef
        self.optimizer = optimizer
        self.warmup = warmup
        self.max_grad_norm = max_grad_norm

    def configure_model(self) -> None:
        """Load the weights."""
        self.backbone.load()

    def on_fit_start(self) -> None:
        """Freeze the reference while the policy still is the R-SFT model."""
        self._prepare_reference()

    def on_validation_start(self) -> None:
        """The same for ``validate`` alone, where margins are 0 by construction."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._prepare_reference()

    def on_train_start(self) -> None:
        """Turn dropout off."""
        self.backbone.eval()
        for layer in self.backbone.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training = True  # the layer alone, not what it holds: it checkpoints in training mode only

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return optimizer and cosine."""
        return configure(self, self.optimizer, self.warmup)

    def training_step(self, step: Step, index: int) -> None:
        """Update the weights once with a whole optimizer step."""
        values = take_step(self, step, lambda batch, prefix: self._shares(batch, step.examples, prefix))
        self.log("train/loss", values["loss"], prog_bar=True)
        self.log("train/margin", values["margin"], prog_bar=True)
        for name in sorted(values.keys() - {"loss", "margin"}):
            self.log(f"train/{name}", values[name])

    def validation_step(self, step: Step, index: int) -> None:
        """Log the same values on pairs that are held out."""
        for batch in step.batches:
            for name, value in self._shares(batch, len(batch.ids)).items():
                self.log(f"val/{name}", value, batch_size=len(batch.ids), prog_bar=name == "loss", sync_dist=True)

    def _shares(self, batch: Batch, pairs: int, prefix: SharedPrefix | None = None) -> dict[str, Tensor]:
        """Return this micro-batch's share of each mean over ``pairs`` pairs."""
        tokens = self.backbone.completion_logps(batch, prefix)
        policy = sequence_logps(tokens, batch.sequence, batch.sequences)
        nll = sequence_nll(tokens, batch.sequence, batch.sequences)
        chosen_nll = nll[: len(batch.ids)]
        chosen, rejected = policy.chunk(2)
        assert self.reference is not None, "the trainer prepares it"
        reference_chosen, reference_rejected = self.reference.sequence_logps(batch).to(policy).chunk(2)
        gap = margin(chosen, rejected, reference_chosen, reference_rejected)
        preference = self.preference(gap, self.beta)
        loss = hsdpo(preference, batch.weight, chosen_nll, self.sft_coef)
        per_pair = {
            "loss": loss,
            "preference_loss": preference * batch.weight,
            "sft_loss": chosen_nll,
            "margin": gap,
            "reward_chosen": self.beta * (chosen - reference_chosen),
            "reward_rejected": self.beta * (rejected - reference_rejected),
            "preferred": (gap > 0).to(gap),
            "weight": batch.weight,
        }
        return {name: value.sum() / pairs for name, value in per_pair.items()}

    def _prepare_reference(self) -> None:
        self.backbone.eval()
        if self.reference is None:
            self.reference = FrozenAdapter() if self.backbone.has_adapter else FrozenCopy()
        trainer: Any = self.trainer
        self.reference.prepare(self.backbone, trainer.datamodule.examples())
