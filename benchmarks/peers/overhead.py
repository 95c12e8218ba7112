"""Measures the overhead of a fit around its steps: fits, alternating with a bare loop over the same batches."""

import json
import time
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from transformers import get_cosine_schedule_with_warmup

from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Step
from guardreasoner.training.hsdpo import HSDPOModule
from peers.fit_setup import make_fit
from peers.job import Fit
from peers.machine import setup_torch
from peers.process import read_job
from peers.ratios import difference, require_equal


class FitTimer(Callback):
    """Records the time from the end of the first step to the end of training, and the losses."""

    def __init__(self) -> None:
        self.start_time = self.end_time = 0.0
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *others: Any) -> None:
        """Record the loss, and start the timer after the first step."""
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.start_time = self.start_time or time.perf_counter()

    def on_train_end(self, *others: Any) -> None:
        """Stop the timer."""
        self.end_time = time.perf_counter()


def run_fit(job: Fit) -> tuple[dict[str, Any], Any]:
    """Run a fit; return the seconds of all steps but the first, the losses, and the fit."""
    timer = FitTimer()
    fit = make_fit(job, timer)
    fit.trainer.fit(fit.model, datamodule=fit.datamodule)
    return {"seconds": timer.end_time - timer.start_time, "losses": timer.losses}, fit


def run_bare_loop(job: Fit, module: HSDPOModule, steps: list[Step]) -> dict[str, Any]:
    """Run the same steps in a bare loop; return seconds and losses.

    Args:
        job: The fit, which names the model.
        module: A fitted module, whose settings and reference are used.
        steps: Prepared batches.
    """
    backbone = Backbone(job.base)
    backbone.load()
    backbone.eval()
    bare_module = HSDPOModule(backbone, module.reference, module.objective, module.beta, module.sft_coef)
    weights = [weight for weight in bare_module.parameters() if weight.requires_grad]
    optimizer = module.optimizer(weights)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, len(steps))
    start_time, losses = 0.0, []
    for step in steps:
        optimizer.zero_grad()
        total = 0.0
        original = backbone.encode_prefix(step.batches[0].prefix_ids) if len(step.batches) > 1 else None
        copy = original and original.detached()
        for number, batch in enumerate(step.batches):
            last = number + 1 == len(step.batches)
            loss = bare_module._contributions(batch, step.examples, original if last else copy)["loss"]
            total += float(loss)
            if last and original and copy:
                loss = loss + original.surrogate_loss(copy)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, module.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(total)
        start_time = start_time or time.perf_counter()
    return {"seconds": time.perf_counter() - start_time, "losses": losses}


def measure(job: Fit) -> dict[str, Any]:
    """Return the seconds of each fit and bare loop, after a warm-up fit.

    Raises:
        InputError: Their losses differ.
    """
    setup_torch("cpu", job.threads)
    _, fit = run_fit(job)
    steps = list(fit.datamodule.train_dataloader())
    runs: dict[str, list[float]] = {"fit": [], "bare": []}
    for number in range(job.repeats):
        if number % 2 == 0:
            fitted, loop = run_fit(job)[0], run_bare_loop(job, fit.model, steps)
        else:
            loop, fitted = run_bare_loop(job, fit.model, steps), run_fit(job)[0]
        require_equal("fit and bare loop", difference(fitted["losses"], loop["losses"]), "fp32")
        runs["fit"].append(fitted["seconds"])
        runs["bare"].append(loop["seconds"])
    return {**runs, "steps": len(steps) - 1}


if __name__ == "__main__":
    job, result_path = read_job(Fit)
    result_path.write_text(json.dumps(measure(job)))
