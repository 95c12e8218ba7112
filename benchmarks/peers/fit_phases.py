"""Measures one fit in phases: seconds and peak memory of data set-up, reference and training."""

import json
import time
from typing import Any

from lightning.pytorch import Callback, Trainer

from peers.fit_setup import make_fit
from peers.job import Fit
from peers.machine import peak_mb, reset_peak, resident_mb, setup_torch
from peers.process import read_job

PHASES = ("data", "reference", "training")


class PhaseTimer(Callback):
    """Records end time and peak memory of each phase of a fit."""

    def __init__(self) -> None:
        reset_peak("cpu")
        self.ends = [time.perf_counter()]
        self.peaks: list[float] = []

    def end(self) -> None:
        """End a phase and start the next one."""
        self.peaks.append(peak_mb("cpu"))
        self.ends.append(time.perf_counter())
        reset_peak("cpu")

    def setup(self, trainer: Trainer, module: Any, stage: str) -> None:
        """End the data phase: data modules are set up before callbacks."""
        self.end()

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """End the reference phase."""
        self.end()

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        """End the training phase."""
        self.end()


def measure(job: Fit) -> dict[str, Any]:
    """Fit, and return the number of pairs and, by phase, seconds and peak memory in MB."""
    setup_torch("cpu", job.threads)
    fit: Any = make_fit(job)
    before = resident_mb("cpu")
    timer = PhaseTimer()
    fit.trainer.callbacks.append(timer)
    fit.trainer.fit(fit.model, datamodule=fit.datamodule)
    seconds = [end - start for start, end in zip(timer.ends, timer.ends[1:], strict=False)]
    return {
        "pairs": len(fit.datamodule.examples()),
        "steps": fit.trainer.global_step,
        "before_mb": before,
        "seconds": dict(zip(PHASES, seconds, strict=True)),
        "peak_mb": dict(zip(PHASES, timer.peaks, strict=True)),
    }


if __name__ == "__main__":
    job, result_path = read_job(Fit)
    result_path.write_text(json.dumps(measure(job)))
