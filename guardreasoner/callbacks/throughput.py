"""Tokens per second, memory, learning rate and epoch, at every logged step."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule

from guardreasoner.model.batch import Step
from guardreasoner.training.sampler import StepSampler


class Throughput(Callback):
    """Log ``train/tokens_per_second`` (unpadded, this process), ``train/memory_gb`` (peak), ``train/lr`` and ``epoch``.

    ``train/lr`` is the learning rate that the step used. ``epoch`` is the number of passes over the data; the
    trainer's own count stays 0 because one of its epochs holds all passes.
    """

    LOGGED = frozenset({"train/tokens_per_second", "train/memory_gb", "train/lr", "epoch"})
    """Names of the logged values."""

    def __init__(self) -> None:
        self._started = 0.0
        self._tokens = 0
        self._lr = 0.0

    def on_train_batch_start(self, trainer: Any, module: LightningModule, step: Step, index: int) -> None:
        """Start the clock at the first step after a logged one."""
        if self._tokens == 0:
            self._started = time.perf_counter()
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer: Any, module: LightningModule, outputs: Any, step: Step, index: int) -> None:
        """Log the throughput since the last logged step."""
        self._tokens += sum(batch.tokens for batch in step.batches[: step.counted])
        module.log("train/lr", self._lr)
        module.log("epoch", _epochs(trainer))
        if trainer.global_step % trainer.log_every_n_steps == 0 and self._tokens:
            seconds = time.perf_counter() - self._started
            module.log("train/tokens_per_second", self._tokens / seconds, prog_bar=True)
            module.log("train/memory_gb", _peak_bytes(module.device) / 1e9)
            self._tokens = 0

    def on_validation_epoch_end(self, trainer: Any, module: LightningModule) -> None:
        """Log the epoch here too, where the trainer would otherwise log its own."""
        if not trainer.sanity_checking:
            module.log("epoch", _epochs(trainer))


class StepTimer(Callback):
    """Time the steps of a run after the first one, which is slower than those after it.

    Attributes:
        seconds: of those steps.
        tokens: of those steps, unpadded, of this process.
        peak: peak memory in bytes.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.tokens = 0
        self.peak = 0
        self._started = 0.0

    def on_train_batch_start(self, trainer: Any, module: LightningModule, step: Step, index: int) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: LightningModule, outputs: Any, step: Step, index: int) -> None:
        """Add the step, unless it is the first."""
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        if index:
            self.seconds += time.perf_counter() - self._started
            self.tokens += sum(batch.tokens for batch in step.batches[: step.counted])
        self.peak = _peak_bytes(module.device)


def _epochs(trainer: Any) -> float:
    """Return the number of passes over the data, including those before a resumed run."""
    sampler = trainer.train_dataloader.batch_sampler
    assert isinstance(sampler, StepSampler)
    # Neither the updates of GRPO nor skipped steps make the number of optimizer steps that of the sampler.
    return sampler.start_epoch + trainer.fit_loop.epoch_loop.batch_progress.current.processed / sampler.steps_per_epoch


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux, in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
