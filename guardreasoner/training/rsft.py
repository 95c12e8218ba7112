"""Stage 1, R-SFT: learn to write the reasoning and then the verdicts (arXiv 2501.18492, section 3.2)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, Step
from guardreasoner.model.packed_attention import SharedPrefix
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Speed
from guardreasoner.training.checkpoint import (
    random_state_of,
    require_trained_weights,
    restore_random_state,
    save_training_state,
    skipped_steps_of,
)
from guardreasoner.training.saved_state import load_state
from guardreasoner.training.sharding import shares_of_state
from guardreasoner.training.step import configure_optimizer, take_step
from guardreasoner.workflow.integrity import require_unchanged
from guardreasoner.workflow.ranges import CountOrZero, NotNegative, Share


@runtime_checkable
class HasSpeeds(Protocol):
    """Training data that know the speeds of their targets."""

    speeds: tuple[Speed, ...]


class RSFTModule(LightningModule):
    """Negative log-likelihood of reasoning and answer given instruction and conversation.

    The loss is the mean over the completion tokens of the optimizer step; prompt tokens carry no loss. A run that
    continues a finished one starts from its model folder and optimizer state, with a new cosine schedule over the
    remaining epochs.

    Args:
        backbone: model to train.
        optimizer: function of the parameters; its ``lr`` is the peak of the cosine schedule.
        warmup: share of the steps with a linear increase of the learning rate; 0 in the paper.
        max_grad_norm: limit of the gradient norm; 0 disables clipping.
        max_skipped_steps: steps with a loss or gradient that is not finite that are skipped, counted and logged as
            ``train/skipped_steps``; one more stops the run.
        optimizer_state: ``optimizer.pt`` of the run to continue, for Adam's moments; None starts them at zero.

    Raises:
        InputError: the file of the optimizer state does not exist.
    """

    LOGGED = frozenset({"train/loss", "train/sft_loss", "train/grad_norm", "train/skipped_steps", "val/loss"})
    """Names of the values that a fit logs."""

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(
            parameters, lr=5e-5, weight_decay=0.0, fused=True
        ),
        warmup: Share = 0.0,
        max_grad_norm: NotNegative = 1.0,
        optimizer_state: str | None = None,
        max_skipped_steps: CountOrZero = 0,
    ) -> None:
        super().__init__()
        if optimizer_state and not Path(optimizer_state).is_file():
            raise InputError(f"model.optimizer_state: {optimizer_state}: no such file")
        self.automatic_optimization = False
        self.backbone = backbone
        self.optimizer = optimizer
        self.warmup = warmup
        self.max_grad_norm = max_grad_norm
        self.optimizer_state = optimizer_state
        self.max_skipped_steps = max_skipped_steps
        self.skipped_steps = 0
        self.strict_loading = False  # frozen weights are not in a checkpoint; require_trained_weights checks the others
        self._random_state: dict[str, Tensor] | None = None

    def configure_model(self) -> None:
        """Load the weights in training mode; ``from_pretrained`` returns evaluation mode, without dropout."""
        self.backbone.load()
        self.backbone.train()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return optimizer and schedule; a continued run keeps Adam's moments and uses the new peak."""
        configured = configure_optimizer(self, self.optimizer, self.warmup)
        if self.optimizer_state:
            optimizer = configured["optimizer"]
            saved = read_optimizer_state(self.optimizer_state)
            _require_same_weights(optimizer, saved["state"], self.optimizer_state)
            saved = {"state": saved["state"], "param_groups": optimizer.state_dict()["param_groups"]}
            optimizer.load_state_dict(shares_of_state(optimizer, saved))
        return configured

    def on_fit_start(self) -> None:
        """Set the speeds that the model is trained for in its prompt format, which is saved with it."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        tokenizer = self.backbone.prompt_tokenizer
        if isinstance(data, HasSpeeds) and data.speeds and isinstance(tokenizer.format, PromptFormat):
            tokenizer.format = replace(tokenizer.format, speeds=data.speeds)

    def on_train_start(self) -> None:
        """Return to training mode, because Lightning keeps the evaluation mode of a validation before training."""
        self.backbone.train()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the trained weights, the random state and the number of skipped steps."""
        save_training_state(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the weights of a checkpoint and keep its random state for the first training batch."""
        require_trained_weights(self, checkpoint)
        self._random_state = random_state_of(self, checkpoint)
        self.skipped_steps = skipped_steps_of(checkpoint)

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        """Restore the random state of a resumed run, once."""
        restore_random_state(self._random_state)
        self._random_state = None

    def training_step(self, step: Step, index: int) -> None:
        """Run one optimizer step: all its micro-batches forward and backward, then one update."""
        values = take_step(self, step, lambda batch, prefix: {"loss": self._nll_sum(batch, prefix) / step.tokens})
        self.log("train/loss", values["loss"], prog_bar=True)
        self.log("train/sft_loss", values["loss"])
        self.log("train/grad_norm", values["grad_norm"])

    def validation_step(self, step: Step, index: int) -> None:
        """Log the token mean over the validation records."""
        for batch in step.batches:
            count = len(batch.targets)
            self.log("val/loss", self._nll_sum(batch) / count, batch_size=count, prog_bar=True, sync_dist=True)

    def _nll_sum(self, batch: Batch, prefix: SharedPrefix | None = None) -> Tensor:
        return -batch.weighted(self.backbone(batch, prefix)).sum()


def read_optimizer_state(path: str) -> dict[str, Any]:
    """Read ``optimizer.pt``.

    Args:
        path: the file; if it lies in a model folder with a manifest, it is compared with that.

    Raises:
        InputError: it is damaged, edited, or not the state of an optimizer.
    """
    require_unchanged(path)
    saved = load_state(path, "model.optimizer_state")
    if not isinstance(saved, dict) or "state" not in saved:
        raise InputError(f"model.optimizer_state: {path}: not the state of an optimizer")
    return saved


def _require_same_weights(optimizer: Optimizer, state: Any, path: str) -> None:
    """Raise ``InputError`` unless each saved moment belongs to a trained weight of its shape."""
    weights = dict(enumerate(weight for group in optimizer.param_groups for weight in group["params"]))
    fits = isinstance(state, Mapping) and all(
        index in weights
        and isinstance(values, Mapping)
        and getattr(values.get("exp_avg"), "shape", weights[index].shape) == weights[index].shape
        for index, values in state.items()
    )
    if not fits:
        raise InputError(
            f"model.optimizer_state: {path}: it belongs to other weights than the {len(weights)} that this run trains",
            "continue the run that wrote it (same model, same LoRA options), or leave it out to start moments at zero",
        )
