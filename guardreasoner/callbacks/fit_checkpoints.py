"""Checkpoints of a fit at intervals and when it is asked to stop, from which the same command continues."""

import logging
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from guardreasoner.errors import InputError
from guardreasoner.training.checkpoint_file import SealedCheckpointIO
from guardreasoner.training.step import planned_steps
from guardreasoner.workflow import stop_signals
from guardreasoner.workflow.stop_signals import Stopped, TimeOver
from guardreasoner.workflow.unfinished_fit import UnfinishedFit

log = logging.getLogger("guardreasoner")


@dataclass(frozen=True)
class Interval:
    """How often a fit writes a checkpoint.

    Args:
        steps: optimizer steps between two checkpoints; 0 if they are counted in seconds.
        seconds: seconds between two checkpoints; 0 if they are counted in steps.
    """

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str | int) -> "Interval":
        """Read a number of steps such as ``500``, or of minutes such as ``10m``.

        Raises:
            InputError: it is neither.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*m|(\d+)", str(text).strip())
        interval = cls(int(match[2] or 0), 60 * float(match[1] or 0)) if match else cls()
        if interval == cls():
            raise InputError(f"checkpoint_every: expected steps such as 500, or minutes such as 10m, got {text!r}")
        return interval


class FitCheckpoints(Callback):
    """Save the whole training state at intervals, and before a fit stops early.

    A checkpoint is written between two optimizer steps, after validation and logging of the step before it, so that a
    resumed run logs each step exactly once. Signals that arrive within a step or a validation wait for its end.

    Args:
        unfinished: where the checkpoints go; None if the fit has no output, so that nothing can be continued.
        every: how often a checkpoint is written.
        max_seconds: seconds after which the fit stops, counted from the first step of this command.
    """

    def __init__(
        self,
        unfinished: UnfinishedFit | None,
        every: Interval,
        max_seconds: float = math.inf,
    ) -> None:
        self.unfinished = unfinished
        self.every = every
        self.max_seconds = max_seconds
        self._started = self._saved_at = 0.0
        self._first_step: int | None = None

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Do without checkpoints if the strategy writes its own kind, sharded over processes."""
        if self.unfinished is not None and not isinstance(trainer.strategy.checkpoint_io, SealedCheckpointIO):
            log.warning("no checkpoints: %s cannot be resumed by itself", type(trainer.strategy).__name__)
            self.unfinished = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Defer signals to the end of a step."""
        stop_signals.defer()  # also in place of the trainer's own handler, which would end the fit without saving
        self._started = self._saved_at = time.monotonic()
        self._first_step = None

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        """Save or stop, if either is due before step ``index``."""
        if self._first_step is None:
            self._first_step = index
        signal_number, time_over, due = self._requests(trainer, index)
        time_over = time_over and index > self._first_step  # each command makes progress
        must_stop = signal_number or time_over
        if (must_stop or due) and self.unfinished is not None and index > self._first_step:
            self._save(trainer, index)
        if must_stop:
            updates = getattr(module, "updates", 1)
            progress = f"{index:,} of {planned_steps(trainer, updates):,} steps are done{self._how_to_continue()}"
            raise Stopped(signal_number, progress) if signal_number else TimeOver(progress)

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Leave the folder only if there is something to continue from."""
        if self.unfinished is not None and trainer.is_global_zero:
            self.unfinished.discard_if_empty()

    def _requests(self, trainer: Any, index: int) -> tuple[int, bool, bool]:
        """Return the signal (0 for none), whether the time is over and whether to save, as any process has it."""
        now = time.monotonic()
        steps = self.every.steps
        due = index % steps == 0 if steps else now - self._saved_at >= self.every.seconds
        requests = torch.tensor([stop_signals.received() or 0, now - self._started >= self.max_seconds, due])
        if trainer.world_size > 1:
            requests = trainer.strategy.reduce(requests.to(trainer.strategy.root_device).float(), reduce_op="max")
        number, time_over, due_anywhere = requests.tolist()
        return int(number), bool(time_over), bool(due_anywhere)

    def _how_to_continue(self) -> str:
        steps = self.unfinished.steps() if self.unfinished is not None else []
        return f"; run the same command again to resume after step {steps[-1]:,}" if steps else ""

    def _save(self, trainer: Any, index: int) -> None:
        assert self.unfinished is not None
        folder = tensorboard_folder(trainer)
        if folder and trainer.is_global_zero:
            trainer.logger.experiment.flush()
        details = self.unfinished.details(folder) if trainer.is_global_zero else {}
        loop = trainer.fit_loop.epoch_loop
        # A resumed loop adds the step that it takes for unfinished: it expects checkpoints made within a step.
        loop._batches_that_stepped -= 1
        try:
            trainer.save_checkpoint(self.unfinished.checkpoint(index), False, storage_options=details)
        except OSError as error:
            trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other processes wait
            log.warning(
                "step %d: no checkpoint: %s: %s", index, error.filename or self.unfinished.folder, error.strerror
            )
        finally:
            loop._batches_that_stepped += 1
        if trainer.is_global_zero:
            self.unfinished.remove_old_checkpoints()
        self._saved_at = time.monotonic()


def tensorboard_folder(trainer: Any) -> Path | None:
    """Return the folder of the run's TensorBoard log, None if it has none."""
    return Path(trainer.logger.log_dir) if isinstance(trainer.logger, TensorBoardLogger) else None
