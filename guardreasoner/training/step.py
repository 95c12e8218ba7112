"""One optimizer step over its micro-batches, and the learning-rate schedule; both training stages use them."""

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from guardreasoner.errors import InputError
from guardreasoner.model.batch import Batch, Step
from guardreasoner.model.packed_attention import SharedPrefix
from guardreasoner.training.sharding import is_share
from guardreasoner.training.training_data import TrainingDataModule

log = logging.getLogger("guardreasoner")

LossFunction = Callable[[Batch, SharedPrefix | None], Mapping[str, Tensor]]
"""Return a micro-batch's contribution to each logged value, "loss" among them; the shared prefix may be given."""


def take_step(module: Any, step: Step, loss_function: LossFunction) -> dict[str, Tensor]:
    """Run backward over the micro-batches of a step, clip the gradient, and update the weights once.

    Micro-batch losses are sums that are already divided by the denominators of the whole step, so they add up: how a
    step is split into micro-batches or over processes changes nothing but rounding. The shared prefix of the prompts
    is computed once before the micro-batches and gets its backward pass together with the last of them.

    Args:
        module: LightningModule in manual optimization; ``max_grad_norm`` is its limit of the gradient norm, 0 for none,
            ``skipped_steps`` counts the steps without an update, and ``max_skipped_steps`` is their limit.
        step: this process's part of the step.
        loss_function: contributions of a micro-batch; "loss" is minimized.

    Returns:
        The values of the whole step, and "grad_norm" before clipping. If the loss or the gradient is not finite, the
        step is skipped: weights and optimizer are unchanged, the learning rate moves on.

    Raises:
        InputError: the loss or the gradient is not finite, and no step may be skipped any more; the weights are
            unchanged.
    """
    optimizer = module.optimizers()
    optimizer.zero_grad()
    totals: dict[str, Tensor] = {}
    prefix = module.backbone.encode_prefix(step.batches[0].prefix_ids) if len(step.batches) > 1 else None
    copy = prefix and prefix.detached()
    for index, batch in enumerate(step.batches):
        last = index + 1 == len(step.batches)
        with _without_sync(module, wanted=not last):
            contributions = loss_function(batch, prefix if last else copy)
            values = {name: value * float(step.counts(index)) for name, value in contributions.items()}
            # DDP and FSDP average the gradients of the processes, but their contributions must be added.
            objective = values["loss"] * module.trainer.world_size
            if last and prefix and copy:
                objective = objective + prefix.surrogate_loss(copy)
            module.manual_backward(objective)
        for name, value in values.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value.detach()
    totals = {name: _sum_over_processes(module, value) for name, value in totals.items()}
    limit = module.max_grad_norm or float("inf")
    parameters = [p for p in module.parameters() if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    whole: Any = norm  # a share where the weights are sharded
    totals["grad_norm"] = whole.full_tensor() if is_share(norm) else norm
    is_finite = True
    for name, what in (("loss", "loss"), ("grad_norm", "gradient norm")):
        if is_finite and not torch.isfinite(totals[name]):
            is_finite = False
            _skip_or_stop(module, step, f"the {what} is {totals[name].item()}")
    if is_finite:
        optimizer.step()
    else:
        optimizer.zero_grad()
    module.lr_schedulers().step()
    if module.max_skipped_steps:
        module.log("train/skipped_steps", float(module.skipped_steps))
    return totals


def configure_optimizer(
    module: Any, optimizer: Callable[[Any], Optimizer], warmup: float, updates_per_step: int = 1
) -> Any:
    """Return the optimizer of the trainable weights and a cosine schedule to 0, in the form that Lightning expects.

    Args:
        module: LightningModule whose trainer knows the number of steps.
        optimizer: function of the parameters.
        warmup: share of the steps with a linear increase at the start; 0 in the paper.
        updates_per_step: updates of the weights per step of the loader.
    """
    configured = optimizer([p for p in module.parameters() if p.requires_grad])
    total = planned_steps(module.trainer, updates_per_step) * updates_per_step
    schedule = LambdaLR(configured, partial(_cosine, warmup=int(warmup * total), total=total))
    return {"optimizer": configured, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _cosine(step: int, *, warmup: int, total: int) -> float:
    """Return the share of the learning rate at a step, as transformers' schedule; importing that would import peft."""
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def planned_steps(trainer: Any, updates_per_step: int = 1) -> int:
    """Return the number of loader steps of a run: ``limit_train_batches`` limits them, ``max_steps`` the updates.

    ``trainer.estimated_stepping_batches`` must not be used: it builds the training loader before a checkpoint is
    restored, so that a resumed run would start again with the first examples.
    """
    if not isinstance(trainer.datamodule, TrainingDataModule):
        return int(trainer.estimated_stepping_batches)
    total = trainer.datamodule.total_steps
    limit = trainer.limit_train_batches
    if limit is not None:
        total = min(total, limit) if isinstance(limit, int) else int(total * limit)
    return total if trainer.max_steps == -1 else min(total, -(-trainer.max_steps // updates_per_step))


def _skip_or_stop(module: Any, step: Step, reason: str) -> None:
    """Count a step that is not finite; raise ``InputError`` if too many are."""
    ids = ", ".join(_gather_ids(module, [name for batch in step.batches[: step.counted] for name in batch.ids]))
    index = module.trainer.fit_loop.epoch_loop.batch_idx
    if module.skipped_steps >= module.max_skipped_steps:
        raise InputError(
            f"step {index}: {reason}; stopped before the update",
            f"lower model.optimizer.lr, set model.max_skipped_steps, or check the records of the step: {ids}",
        )
    module.skipped_steps += 1
    if module.trainer.is_global_zero:
        count = f"{module.skipped_steps} of at most {module.max_skipped_steps}"
        log.warning("step %d: %s; skipped (%s); records: %s", index, reason, count, ids)


def _gather_ids(module: Any, ids: list[str]) -> list[str]:
    if module.trainer.world_size == 1:
        return ids
    gathered: list[Any] = [None] * module.trainer.world_size
    torch.distributed.all_gather_object(gathered, ids)
    return [name for part in gathered for name in part]


def _without_sync(module: Any, wanted: bool) -> Any:
    strategy = module.trainer.strategy
    if wanted and isinstance(strategy, DDPStrategy) and strategy.model is not None:
        wrapped: Any = strategy.model
        return wrapped.no_sync()
    return nullcontext()


def _sum_over_processes(module: Any, value: Tensor) -> Tensor:
    if module.trainer.world_size == 1:
        return value
    return module.trainer.strategy.reduce(value, reduce_op="sum")
