"""Fit both stages with sharded weights, one process per rank (``sharded_fits BASE ROLLOUTS OUT WORLD``), or without."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from guardreasoner.errors import InputError
from guardreasoner.evaluation.guard_module import GuardModule
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.lora import LoRA
from guardreasoner.training.checkpoint_file import SealedCheckpointIO
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reasoning_data import ReasoningDataModule
from guardreasoner.training.reference import FrozenAdapter, FrozenCopy, Precomputed
from guardreasoner.training.rsft import RSFTModule
from guardreasoner.training.sharding import ShardedStrategy, whole_optimizer_state, whole_weights
from tests.support.tiny import TinySource, quiet_trainer

SIZE = 7
"""Examples a step. The 15 pairs make steps of 7, 7 and 1: in the last one, one of two processes has none."""


class Keep(Callback):
    """Keep the loss and gradient norm of each step; on request, write a checkpoint before the third one."""

    def __init__(self, checkpoint: Path | None = None) -> None:
        self.values: list[tuple[float, float]] = []
        self.checkpoint = checkpoint

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if self.checkpoint is not None and index == 2:
            loop = trainer.fit_loop.epoch_loop
            loop._batches_that_stepped -= 1  # as FitCheckpoints does
            trainer.save_checkpoint(self.checkpoint, False)
            loop._batches_that_stepped += 1

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        logged = trainer.callback_metrics
        self.values.append((float(logged["train/loss"]), float(logged["train/grad_norm"])))


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Return the optimizer of the shipped configs."""
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0, fused=True)


def fits(base: Path, rollouts: Path, out: Path, strategy: Callable[..., Any] | None, world: int) -> None:
    """Train, write each model folder and its curve below ``out``, and resume one fit from its checkpoint.

    Args:
        base: model folder.
        rollouts: folder of rollouts.
        out: folder to write.
        strategy: function of the compute dtype that makes the strategy; None for one unsharded process.
        world: number of processes.
    """
    out.mkdir(exist_ok=True)

    def fit(name: str, module: Any, data: Any, keep: Keep, dtype: str | None = None, **options: Any) -> None:
        torch.manual_seed(0)  # for new adapters
        extra: dict[str, Any] = {"devices": world, "strategy": strategy(dtype)} if strategy else {}
        trainer = quiet_trainer(callbacks=[keep], plugins=[SealedCheckpointIO()], **extra)
        trainer.fit(module, datamodule=data, weights_only=True, **options)
        first = trainer.is_global_zero
        weights = whole_weights(module.backbone.network, first) if module.backbone.is_sharded else None
        state = whole_optimizer_state(trainer.optimizers[0], first)
        if first:
            (out / name).mkdir()
            module.backbone.write(out / name, weights)
            torch.save({"curve": keep.values, "optimizer": state}, out / f"{name}.pt")

    def rsft(**options: Any) -> RSFTModule:
        return RSFTModule(Backbone(str(base), **options), adam)

    def records() -> ReasoningDataModule:
        return ReasoningDataModule(TinySource(), batch_size=SIZE, micro_batch_size=3, epochs=1)

    def hsdpo(reference: Any, **options: Any) -> HSDPOModule:
        return HSDPOModule(Backbone(str(base), **options), reference, optimizer=adam, beta=0.1)

    def pairs() -> PreferenceDataModule:
        return PreferenceDataModule(
            TinySource(), [str(rollouts)], batch_size=SIZE, micro_batch_size=2, epochs=1, validation_share=0.0
        )

    fit("rsft", rsft(gradient_checkpointing=True), records(), Keep(out / "rsft.ckpt"))
    fit("resumed", rsft(), records(), Keep(), ckpt_path=str(out / "rsft.ckpt"))
    fit("lora", rsft(lora=LoRA(r=2, alpha=4, dropout=0.0)), records(), Keep())
    fit("half", rsft(), records(), Keep(), dtype="bfloat16")
    fit("hsdpo", hsdpo(Precomputed(str(out / "reference"))), pairs(), Keep())
    fit("hsdpo-half", hsdpo(Precomputed(str(out / "reference"))), pairs(), Keep(), dtype="bfloat16")
    if strategy is None:
        return
    for reference, options in ((FrozenCopy(), {}), (FrozenAdapter(), {"lora": LoRA(r=2)})):
        try:
            fit("refused", hsdpo(reference, **options), pairs(), Keep())
        except InputError as error:
            print(f"refused: {error}; {error.hint}")
    try:
        guard = GuardModule(Backbone(str(base)), lambda backbone: LocalGenerator(backbone, 8), k=2)
        quiet_trainer(devices=world, strategy=strategy(None)).predict(guard, datamodule=records())
    except InputError as error:
        print(f"refused: {error}; {error.hint}")


if __name__ == "__main__":
    base, rollouts, out, world = sys.argv[1:]
    fits(Path(base), Path(rollouts), Path(out), ShardedStrategy, int(world))
