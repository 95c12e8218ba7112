"""Progress of a fit: steps, time left and the newest metrics.

In a terminal it is one line of 80 columns, otherwise a log line every half minute.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

log = logging.getLogger("guardreasoner")

_LOG_EVERY = 30.0
"""Seconds between log lines if there is no terminal."""

_SHOWN = {
    "train/loss": ("loss", ".3g"),
    "train/margin": ("margin", ".3g"),
    "val/loss": ("val", ".3g"),
    "train/tokens_per_second": ("tokens/s", ",.0f"),
}
"""Name and format of each metric in the order of the line; further ones follow under their own names."""


class StepProgress(RichProgressBar):
    """Lightning's bar without "Epoch 0/0": one epoch of the trainer holds all passes over the data."""

    def __init__(self) -> None:
        super().__init__()
        self._metrics = _Metrics()
        self._first_batch = 0
        self._started = self._last_logged = 0.0

    @property
    def validation_description(self) -> str:
        """Title of the bar of the validation examples, as wide as "Training"."""
        return "Held out"

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Return the columns, which leave about 45 columns of a terminal of 80 to the metrics."""
        return [
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            self._metrics,
        ]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note when this process started to train; a resumed fit does not start with the first batch."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if not self._started:
            self._first_batch = batch_idx
            self._started = self._last_logged = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar or, without a terminal, the log."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        now = time.monotonic()
        if self.progress is None or self.progress.console.is_terminal or now - self._last_logged < _LOG_EVERY:
            return
        self._last_logged = now
        done, total = batch_idx + 1, self.total_train_batches
        left = (total - done) * (now - self._started) / (done - self._first_batch) / 60
        log.info("batch %s of %s, %.0f min left; %s", f"{done:,}", f"{total:,}", left, self._metrics.text)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Pass the metrics on to our column; return none for Lightning's, which would wrap them."""
        metrics = super().get_metrics(trainer, pl_module)
        self._metrics.text = metric_text({name: value for name, value in metrics.items() if name != "v_num"})
        self._metrics.row = self.train_progress_bar_id
        return {}

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"


def metric_text(metrics: Mapping[str, Any]) -> str:
    """Return metrics in one line, such as "loss 2.11 margin 1.23 val 0.71 tokens/s 1,647"."""
    names = [*(name for name in _SHOWN if name in metrics), *(name for name in metrics if name not in _SHOWN)]
    parts = []
    for name in names:
        title, form = _SHOWN.get(name, (name, ".3g"))
        value = metrics[name]
        parts.append(f"{title} {value:{form}}" if isinstance(value, int | float) else f"{title} {value}")
    return " ".join(parts)


class _Metrics(ProgressColumn):
    """The metrics beside the bar of the training steps."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self.text = ""
        self.row: Any = None

    def render(self, task: Task) -> Text:
        return Text(self.text if task.id == self.row else "")
