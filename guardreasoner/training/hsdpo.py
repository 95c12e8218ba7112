"""Stage 2, HS-DPO: pairs of hard samples, weighted by difficulty, with an SFT mix (arXiv 2501.18492, section 3.3)."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, Step
from guardreasoner.model.log_probs import CompletionLogps, sequence_logps
from guardreasoner.model.packed_attention import SharedPrefix
from guardreasoner.training.checkpoint import require_trained_weights, save_training_state, skipped_steps_of
from guardreasoner.training.initial_policy import prepare_reference, turn_dropout_off
from guardreasoner.training.losses import Objective, dpo, hsdpo, margin, needs_reference
from guardreasoner.training.reference import FrozenAdapter, FrozenCopy, Reference
from guardreasoner.training.step import configure_optimizer, take_step
from guardreasoner.workflow.ranges import CountOrZero, NotNegative, Positive, Share

_MARGIN_TOLERANCE = 1e-6
"""Largest margin before the first step in float32, as a share of |log π| of the pair plus one nat per token.

Measured by hand on pairs of the demo: 1.3e-7 between AVX-512 and AVX2 (64 pairs); 1.2e-4 with weights rounded to
bfloat16, and 4e-4 after one update at a learning rate of 5e-6 (16 pairs).
"""


class HSDPOModule(LightningModule):
    """α · (−log σ(β · margin)) + c · NLL(chosen), averaged over the pairs of the optimizer step.

    Dropout is off, also that of LoRA, so that the margin is exactly 0 at the first step.

    Args:
        backbone: the R-SFT model.
        reference: how the frozen R-SFT model is kept (:mod:`guardreasoner.training.reference`); None uses
            ``FrozenAdapter`` for a model that is trained through an adapter and ``FrozenCopy`` for any other.
        objective: preference objective, a function of (chosen, rejected, beta) such as those in
            :mod:`guardreasoner.training.losses`; ``dpo`` in the paper. One that is reference-free needs no reference.
        beta: strength of the preference term, > 0; in DPO that of the pull towards the reference.
        sft_coef: c, weight of the SFT mix, ≥ 0.
        optimizer: function of the parameters; its ``lr`` is the peak of the cosine schedule.
        warmup: share of the steps with a linear increase of the learning rate; 0 in the paper.
        max_grad_norm: limit of the gradient norm; 0 disables clipping.
        max_skipped_steps: steps with a loss or gradient that is not finite that are skipped, counted and logged as
            ``train/skipped_steps``; one more stops the run.

    Raises:
        InputError: ``beta`` or ``sft_coef`` is out of range, or ``objective`` does not take three arguments.
    """

    LOGGED = frozenset(
        {
            "train/grad_norm",
            "train/skipped_steps",
            *(f"{split}/{name}" for split in ("train", "val") for name in ("loss", "preference_loss", "sft_loss")),
            *(f"{split}/{name}" for split in ("train", "val") for name in ("weight", "margin", "preferred")),
            *(f"{split}/reward_{side}" for split in ("train", "val") for side in ("chosen", "rejected")),
        }
    )
    """Names of the values that a fit logs."""

    def __init__(
        self,
        backbone: Backbone,
        reference: Reference | None = None,
        objective: Callable[..., Any] = dpo,
        beta: Positive = 0.01,
        sft_coef: NotNegative = 2.0,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(
            parameters, lr=5e-6, weight_decay=0.0, fused=True
        ),
        warmup: Share = 0.0,
        max_grad_norm: NotNegative = 1.0,
        max_skipped_steps: CountOrZero = 0,
    ) -> None:
        super().__init__()
        if not (math.isfinite(beta) and beta > 0):
            raise InputError(f"model.beta must be a number above 0, got {beta}")
        if not (math.isfinite(sft_coef) and sft_coef >= 0):
            raise InputError(f"model.sft_coef must be a number of at least 0, got {sft_coef}")
        _require_three_arguments(objective)
        self.automatic_optimization = False
        self.backbone = backbone
        self.reference = reference
        self.objective = objective
        self.beta = beta
        self.sft_coef = sft_coef
        self.optimizer = optimizer
        self.warmup = warmup
        self.max_grad_norm = max_grad_norm
        self.max_skipped_steps = max_skipped_steps
        self.skipped_steps = 0
        self.strict_loading = False  # frozen weights are not in a checkpoint; require_trained_weights checks the others

    def configure_model(self) -> None:
        """Load the weights."""
        self.backbone.load()

    def on_fit_start(self) -> None:
        """Prepare the reference from the R-SFT model, which the policy of a resumed run no longer is."""
        self._prepare_reference()

    def on_validation_start(self) -> None:
        """Prepare the reference for ``validate`` alone, where all margins are 0 by construction."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._prepare_reference()

    def on_train_start(self) -> None:
        """Turn dropout off."""
        turn_dropout_off(self.backbone)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return optimizer and schedule."""
        return configure_optimizer(self, self.optimizer, self.warmup)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the trained weights and the count of skipped steps; the reference comes from the R-SFT folder again."""
        save_training_state(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the weights of a checkpoint and continue its count of skipped steps."""
        require_trained_weights(self, checkpoint)
        self.skipped_steps = skipped_steps_of(checkpoint)

    def training_step(self, step: Step, index: int) -> None:
        """Run one optimizer step: all its micro-batches forward and backward, then one update."""
        is_first_step = self.trainer.global_step == 0

        def loss_function(batch: Batch, prefix: SharedPrefix | None) -> dict[str, Tensor]:
            return self._contributions(batch, step.examples, prefix, is_first_step)

        values = take_step(self, step, loss_function)
        self.log("train/loss", values["loss"], prog_bar=True)
        self.log("train/margin", values["margin"], prog_bar=True)
        for name in sorted(values.keys() - {"loss", "margin"}):
            self.log(f"train/{name}", values[name])

    def validation_step(self, step: Step, index: int) -> None:
        """Log the same values on held-out pairs."""
        for batch in step.batches:
            for name, value in self._contributions(batch, len(batch.ids)).items():
                self.log(f"val/{name}", value, batch_size=len(batch.ids), prog_bar=name == "loss", sync_dist=True)

    def _contributions(
        self, batch: Batch, pairs: int, prefix: SharedPrefix | None = None, is_first_step: bool = False
    ) -> dict[str, Tensor]:
        """Return this micro-batch's contribution to each mean over ``pairs`` pairs."""
        token_logps = batch.weighted(self.backbone(batch, prefix))
        policy = sequence_logps(token_logps, batch.sequence, batch.sequences)
        reference = self.reference.sequence_logps(batch).to(policy) if self.reference is not None else None
        logps = CompletionLogps(policy, batch.lengths, reference)
        chosen, rejected = (logps.select(batch.number == number) for number in (0, 1))
        weight = batch.weight[batch.number == 0]
        if is_first_step and reference is not None:
            self._require_zero_margin(chosen, rejected)
        preference = self._preference(chosen, rejected)
        chosen_nll = -chosen.per_token
        per_pair = {
            "loss": hsdpo(preference, weight, chosen_nll, self.sft_coef),
            "preference_loss": preference * weight,
            "sft_loss": chosen_nll,
            "weight": weight,
        }
        if reference is None:
            gap = chosen.policy - rejected.policy
        else:
            gap = margin(chosen, rejected)
            per_pair["reward_chosen"] = self.beta * chosen.log_ratio
            per_pair["reward_rejected"] = self.beta * rejected.log_ratio
        per_pair |= {"margin": gap, "preferred": (gap > 0).to(gap)}
        return {name: value.sum() / pairs for name, value in per_pair.items()}

    def _preference(self, chosen: CompletionLogps, rejected: CompletionLogps) -> Tensor:
        preference = self.objective(chosen, rejected, self.beta)
        if not isinstance(preference, Tensor) or preference.shape != chosen.policy.shape:
            shape = tuple(preference.shape) if isinstance(preference, Tensor) else type(preference).__name__
            raise InputError(
                f"model.objective: {_name(self.objective)} returned {shape}, expected the loss of each pair, "
                f"{tuple(chosen.policy.shape)}"
            )
        return preference

    def _prepare_reference(self) -> None:
        self.backbone.eval()
        if not needs_reference(self.objective):
            self.reference = None
            return
        if self.reference is None:
            self.reference = FrozenAdapter() if self.backbone.has_adapter else FrozenCopy()
        trainer: Any = self.trainer
        prepare_reference(self.reference, self.backbone, trainer.datamodule.examples(), trainer)

    def _require_zero_margin(self, chosen: CompletionLogps, rejected: CompletionLogps) -> None:
        """Require that policy and reference are the same model, as before the first step of a fresh run."""
        if not (self.reference and self.reference.is_initial_policy):
            return
        gap = margin(chosen, rejected).detach().abs()
        scale = (chosen.policy.abs() + rejected.policy.abs()).detach() + chosen.lengths + rejected.lengths
        is_exact = self.backbone.dtype == self.backbone.compute_dtype == "float32" and not self.backbone.quantization
        tolerance = _MARGIN_TOLERANCE if is_exact else 0.05
        worst = (gap / scale).argmax()
        if gap[worst] > tolerance * scale[worst]:
            found = f"{gap[worst]:.3g} nats, expected 0 (rounding: up to {tolerance * scale[worst]:.1g})"
            raise InputError(
                f"step 0: the margin is {found}: the reference is not the R-SFT model",
                "delete the folder of stored reference values (model.reference.folder) and run again",
            )


def _require_three_arguments(objective: Objective) -> None:
    try:
        inspect.signature(objective).bind(None, None, 0.0)
    except TypeError:
        raise InputError(
            f"model.objective: {_name(objective)}: expected a function of (chosen, rejected, beta)",
            "see guardreasoner.training.losses for examples",
        ) from None


def _name(objective: Objective) -> str:
    return str(getattr(objective, "__name__", objective))
