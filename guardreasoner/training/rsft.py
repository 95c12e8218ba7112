"""Stage 1, R-SFT: learn to write the reasoning and then the verdict (arXiv 2501.18492, section 3.2)."""

from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, Step
from guardreasoner.model.packed_attention import SharedPrefix
from guardreasoner.training.step import configure, take_step


class RSFTModule(LightningModule):
    """Negative log-likelihood of reasoning and answer given instruction and conversation; prompt tokens carry no loss.

    The loss is the mean over the completion tokens of the optimizer step. A run that continues a finished one starts
    from its model folder and optimizer state, with a new cosine over the epochs that remain.

    Args:
        backbone: the model to train.
        optimizer: takes parameters; its ``lr`` is the peak of the cosine.
        warmup: share of the steps before the peak; the paper has none.
        max_grad_norm: clips the gradient's norm; 0 never does.
        optimizer_state: ``optimizer.pt`` of the run to continue, for the moments of Adam; None starts them at zero.

    Raises:
        InputError: no such optimizer state.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(
            parameters, lr=5e-5, weight_decay=0.0, fused=True
        ),
        warmup: float = 0.0,
        max_grad_norm: float = 1.0,
        optimizer_state: str | None = None,
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

    def configure_model(self) -> None:
        """Load the weights, in training mode: ``from_pretrained`` gives evaluation mode, and dropout is wanted here."""
        self.backbone.load()
        self.backbone.train()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return optimizer and cosine; a continued run keeps the moments and takes the new peak."""
        configured = configure(self, self.optimizer, self.warmup)
        if self.optimizer_state:
            made = configured["optimizer"]
            saved = torch.load(self.optimizer_state, map_location="cpu", weights_only=True)
            made.load_state_dict({"state": saved["state"], "param_groups": made.state_dict()["param_groups"]})
        return configured

    def on_train_start(self) -> None:
        """Undo the evaluation mode that Lightning keeps from before."""
        self.backbone.train()

    def training_step(self, step: Step, index: int) -> None:
        """Update the weights once with a whole optimizer step."""
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
        return -self.backbone.completion_logps(batch, prefix).sum()
