"""One fit on some number of pairs, in parts: seconds and peak memory of the data, of the reference, of training."""

import json
import time
from typing import Any

from lightning.pytorch import Callback, Trainer

from peers.fitting import as_fit
from peers.job import Fit
from peers.machine import peak_mb, reset_peak, resident_mb, setup_torch
from peers.process import told

PARTS = ("data", "reference", "training")


class Parts(Callback):
    """Notes when a part of the fit is over, and the most memory that it held."""

    def __init__(self) -> None:
        reset_peak("cpu")
        self.ends = [time.perf_counter()]
        self.peaks: list[float] = []

    def end(self) -> None:
        """End a part and begin the next one."""
        self.peaks.append(peak_mb("cpu"))
        self.ends.append(time.perf_counter())
        reset_peak("cpu")

    def setup(self, trainer: Trainer, module: Any, stage: str) -> None:
        """End the data: they are set up before callbacks are."""
        self.end()

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """End the reference."""
        self.end()

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        """End training."""
        self.end()


def measure(job: Fit) -> dict[str, Any]:
    """Fit; return the number of pairs and, by part, seconds and peak memory in MB."""
    setup_torch("cpu", job.threads)
    made: Any = as_fit(job)
    before = resident_mb("cpu")
    parts = Parts()
    made.trainer.callbacks.append(parts)
    made.trainer.fit(made.model, datamodule=made.datamodule)
    seconds = [end - start for start, end in zip(parts.ends, parts.ends[1:], strict=False)]
    return {
        "pairs": len(made.datamodule.examples()),
        "steps": made.trainer.global_step,
        "before_mb": before,
        "seconds": dict(zip(PARTS, seconds, strict=True)),
        "peak_mb": dict(zip(PARTS, parts.peaks, strict=True)),
    }


if __name__ == "__main__":
    wanted, place = told(Fit)
    place.write_text(json.dumps(measure(wanted)))
