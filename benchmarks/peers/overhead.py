"""What surrounds the step costs: fits as they are, in turn with a bare loop over the same batches."""

import json
import time
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from transformers import get_cosine_schedule_with_warmup

from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Step
from guardreasoner.training.hsdpo import HSDPOModule
from peers.fitting import as_fit
from peers.job import Fit
from peers.machine import setup_torch
from peers.process import told
from peers.ratios import difference, require_equal


class Clock(Callback):
    """Times all from the end of the first step to the end of training, and keeps the losses."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *others: Any) -> None:
        """Start, or go on."""
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.began = self.began or time.perf_counter()

    def on_train_end(self, *others: Any) -> None:
        """Stop."""
        self.ended = time.perf_counter()


def fitted(job: Fit) -> tuple[dict[str, Any], Any]:
    """Run a fit; return the seconds of its steps but the first, its losses, and what was run."""
    clock = Clock()
    made = as_fit(job, clock)
    made.trainer.fit(made.model, datamodule=made.datamodule)
    return {"seconds": clock.ended - clock.began, "losses": clock.losses}, made


def bare(job: Fit, module: HSDPOModule, steps: list[Step]) -> dict[str, Any]:
    """Run the same steps in a plain loop; return the same figures.

    Args:
        job: names the model.
        module: one that was fitted; its settings and its reference are used.
        steps: batches that are ready.
    """
    backbone = Backbone(job.base)
    backbone.load()
    backbone.eval()
    plain = HSDPOModule(backbone, module.reference, module.preference, module.beta, module.sft_coef)
    weights = [weight for weight in plain.parameters() if weight.requires_grad]
    optimizer = module.optimizer(weights)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, len(steps))
    began, losses = 0.0, []
    for step in steps:
        optimizer.zero_grad()
        total = 0.0
        original = backbone.begin(step.batches[0]) if len(step.batches) > 1 else None
        copy = original and original.detached()
        for number, batch in enumerate(step.batches):
            last = number + 1 == len(step.batches)
            loss = plain._shares(batch, step.examples, original if last else copy)["loss"]
            total += float(loss)
            if last and original and copy:
                loss = loss + original.surrogate_loss(copy)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, module.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(total)
        began = began or time.perf_counter()
    return {"seconds": time.perf_counter() - began, "losses": losses}


def measure(job: Fit) -> dict[str, Any]:
    """Return the seconds of each run of both, after a fit to warm up.

    Raises:
        InputError: they did not train the same.
    """
    setup_torch("cpu", job.threads)
    _, made = fitted(job)
    steps = list(made.datamodule.train_dataloader())
    runs: dict[str, list[float]] = {"fit": [], "bare": []}
    for number in range(job.repeats):
        if number % 2 == 0:
            whole, loop = fitted(job)[0], bare(job, made.model, steps)
        else:
            loop, whole = bare(job, made.model, steps), fitted(job)[0]
        require_equal("fit and bare loop", difference(whole["losses"], loop["losses"]), "fp32")
        runs["fit"].append(whole["seconds"])
        runs["bare"].append(loop["seconds"])
    return {**runs, "steps": len(steps) - 1}


if __name__ == "__main__":
    wanted, place = told(Fit)
    place.write_text(json.dumps(measure(wanted)))
