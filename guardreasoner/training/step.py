"""One optimizer step over its micro-batches, and the schedule: what both training stages share."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Optimizer
from transformers import get_cosine_schedule_with_warmup

from guardreasoner.errors import InputError
from guardreasoner.model.batch import Batch, Step
from guardreasoner.model.packed_attention import SharedPrefix

Losses = Callable[[Batch, SharedPrefix | None], Mapping[str, Tensor]]
"""Gives a micro-batch's share of each logged value, "loss" among them, from what its prompts begin with, if that is
computed already."""


def take_step(module: Any, step: Step, losses: Losses) -> dict[str, Tensor]:
    """Run backward over the micro-batches of a step, clip, and update the weights once.

    Micro-batch losses are *sums* that are already divided by the denominators of the whole step, so they add up:
    splitting a step into micro-batches or over processes changes nothing but rounding. What all prompts begin with goes
    forward once before the micro-batches and backward once with the last of them.

    Args:
        module: a LightningModule in manual optimization; its ``max_grad_norm`` clips the gradient's norm (0: never).
        step: this process's part of the step.
        losses: of a micro-batch; "loss" is what is minimised.

    Returns:
        The values of the whole step, and "grad_norm" before clipping.

    Raises:
        InputError: the loss is not a finite number; the weights are then as they were before the step.
    """
    optimizer = module.optimizers()
    optimizer.zero_grad()
    totals: dict[str, Tensor] = {}
    several = len(step.batches) > 1
    original = module.backbone.encode_prefix(step.batches[0].prefix_ids) if several else None
    copy = original and original.detached()
    for number, batch in enumerate(step.batches):
        last = number + 1 == len(step.batches)
        with _without_sync(module, wanted=not last):
            values = {name: value * step.share for name, value in losses(batch, original if last else copy).items()}
            # processes average their gradients; the shares must be added
            goal = values["loss"] * module.trainer.world_size
            if last and original and copy:
                goal = goal + original.surrogate_loss(copy)
            module.manual_backward(goal)
        for name, value in values.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value.detach()
    totals = {name: _summed(module, value) for name, value in totals.items()}
    if not torch.isfinite(totals["loss"]):
        raise InputError(
            f"step {module.global_step}: the loss is {totals['loss'].item()}; training stopped before the update",
            "lower model.optimizer.lr, or look for damaged records among " + ", ".join(step.batches[0].ids[:4]),
        )
    limit = module.max_grad_norm or float("inf")
    parameters = [p for p in module.parameters() if p.grad is not None]
    totals["grad_norm"] = torch.nn.utils.clip_grad_norm_(parameters, limit)
    if not torch.isfinite(totals["grad_norm"]):
        raise InputError(f"step {module.global_step}: the gradient is not finite; training stopped before the update")
    optimizer.step()
    module.lr_schedulers().step()
    return totals


def configure(module: Any, optimizer: Callable[[Any], Optimizer], warmup: float) -> Any:
    """Return the optimizer on the trainable weights and a cosine to 0 over the run's steps, as Lightning wants them.

    Args:
        module: a LightningModule; its trainer knows the number of steps.
        optimizer: takes parameters.
        warmup: share of the steps with a linear rise first; the paper has none.
    """
    made = optimizer([p for p in module.parameters() if p.requires_grad])
    total = module.trainer.estimated_stepping_batches
    if total == float("inf"):
        raise InputError(f"trainer.max_epochs must be 1, got {module.trainer.max_epochs}", "set data.epochs instead")
    total = int(total)
    schedule = get_cosine_schedule_with_warmup(made, int(warmup * total), total)
    return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _without_sync(module: Any, wanted: bool) -> Any:
    strategy = module.trainer.strategy
    if wanted and isinstance(strategy, DDPStrategy) and strategy.model is not None:
        wrapped: Any = strategy.model
        return wrapped.no_sync()
    return nullcontext()


def _summed(module: Any, value: Tensor) -> Tensor:
    if module.trainer.world_size == 1:
        return value
    return module.trainer.strategy.reduce(value, reduce_op="sum")
