"""One optimizer step over its micro-batches, and the learning-rate schedule; both training stages use them."""

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
from guardreasoner.training.training_data import TrainingDataModule

LossFunction = Callable[[Batch, SharedPrefix | None], Mapping[str, Tensor]]
"""Return a micro-batch's contribution to each logged value, "loss" among them; the shared prefix may be given."""


def take_step(module: Any, step: Step, loss_function: LossFunction) -> dict[str, Tensor]:
    """Run backward over the micro-batches of a step, clip the gradient, and update the weights once.

    Micro-batch losses are sums that are already divided by the denominators of the whole step, so they add up: how a
    step is split into micro-batches or over processes changes nothing but rounding. The shared prefix of the prompts
    is computed once before the micro-batches and gets its backward pass together with the last of them.

    Args:
        module: LightningModule in manual optimization; ``max_grad_norm`` is its limit of the gradient norm, 0 for none.
        step: this process's part of the step.
        loss_function: contributions of a micro-batch; "loss" is minimized.

    Returns:
        The values of the whole step, and "grad_norm" before clipping.

    Raises:
        InputError: the loss or the gradient is not finite; the weights are unchanged.
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
            values = {name: value * step.scale for name, value in contributions.items()}
            # DDP averages the gradients of the processes, but their contributions must be added.
            objective = values["loss"] * module.trainer.world_size
            if last and prefix and copy:
                objective = objective + prefix.surrogate_loss(copy)
            module.manual_backward(objective)
        for name, value in values.items():
            totals[name] = totals.get(name, torch.zeros_like(value)) + value.detach()
    totals = {name: _sum_over_processes(module, value) for name, value in totals.items()}
    if not torch.isfinite(totals["loss"]):
        raise InputError(
            f"step {module.global_step}: the loss is {totals['loss'].item()}; stopped before the update",
            "lower model.optimizer.lr, or check the records " + ", ".join(step.batches[0].ids[:4]),
        )
    limit = module.max_grad_norm or float("inf")
    parameters = [p for p in module.parameters() if p.grad is not None]
    totals["grad_norm"] = torch.nn.utils.clip_grad_norm_(parameters, limit)
    if not torch.isfinite(totals["grad_norm"]):
        raise InputError(f"step {module.global_step}: the gradient is not finite; stopped before the update")
    optimizer.step()
    module.lr_schedulers().step()
    return totals


def configure_optimizer(module: Any, optimizer: Callable[[Any], Optimizer], warmup: float) -> Any:
    """Return the optimizer of the trainable weights and a cosine schedule to 0, in the form that Lightning expects.

    Args:
        module: LightningModule whose trainer knows the number of steps.
        optimizer: function of the parameters.
        warmup: share of the steps with a linear increase at the start; 0 in the paper.
    """
    configured = optimizer([p for p in module.parameters() if p.requires_grad])
    total = planned_steps(module.trainer)
    schedule = get_cosine_schedule_with_warmup(configured, int(warmup * total), total)
    return {"optimizer": configured, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def planned_steps(trainer: Any) -> int:
    """Return the number of optimizer steps of a run, at most ``max_steps`` and ``limit_train_batches``.

    ``trainer.estimated_stepping_batches`` must not be used: it builds the training loader before a checkpoint is
    restored, so that a resumed run would start again with the first examples.
    """
    if not isinstance(trainer.datamodule, TrainingDataModule):
        return int(trainer.estimated_stepping_batches)
    total = trainer.datamodule.total_steps
    limit = trainer.limit_train_batches
    if limit is not None:
        total = min(total, limit) if isinstance(limit, int) else int(total * limit)
    return total if trainer.max_steps == -1 else min(total, trainer.max_steps)


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
