"""Tokens per second, memory and learning rate, at every logged step."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.tokens import Step


class Throughput(Callback):
    """Log ``train/tokens_per_second`` (unpadded, this process), ``train/memory_gb`` (peak) and ``train/lr``."""

    def __init__(self) -> None:
        self._started = 0.0
        self._tokens = 0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, step: Step, index: int) -> None:
        """Start the clock after a logged step."""
        if self._tokens == 0:
            self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: LightningModule, outputs: Any, step: Step, index: int) -> None:
        """Log what happened since the last logged step."""
        self._tokens += sum(batch.tokens for batch in step.batches)
        module.log("train/lr", trainer.optimizers[0].param_groups[0]["lr"])
        if trainer.global_step % trainer.log_every_n_steps == 0 and self._tokens:
            seconds = time.perf_counter() - self._started
            module.log("train/tokens_per_second", self._tokens / seconds, prog_bar=True)
            module.log("train/memory_gb", _peak_bytes(module.device) / 1e9)
            self._tokens = 0


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux, in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
