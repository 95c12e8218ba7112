"""Check the free space for the model and the checkpoints of a fit, before its first step."""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from guardreasoner.callbacks.fit_checkpoints import FitCheckpoints
from guardreasoner.errors import InputError
from guardreasoner.workflow.unfinished_fit import KEPT

_STATE = 8
"""Bytes per trained weight of the state of Adam: two moments in float32."""


class FreeSpace(Callback):
    """Refuse a fit whose model and checkpoints do not fit on their disks.

    Args:
        output: Folder that the trained model is written to.
        with_optimizer: Whether the state of the optimizer is written too.
    """

    def __init__(self, output: str, with_optimizer: bool = False) -> None:
        self.output = Path(output)
        self.with_optimizer = with_optimizer

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Compare the sizes with the free space.

        Raises:
            InputError: a disk has too little free space.
        """
        if not trainer.is_global_zero:
            return
        needed: dict[int, int] = defaultdict(int)
        places: dict[int, Path] = {}
        for folder, size in self._sizes(trainer, module):
            place = _existing(folder)
            device = os.stat(place).st_dev
            needed[device] += size
            places.setdefault(device, place)
        for device, size in needed.items():
            free = shutil.disk_usage(places[device]).free
            if free < size:
                raise InputError(
                    f"output: {self.output}: model and checkpoints need {size / 2**20:,.1f} MiB, "
                    f"{places[device]} has {free / 2**20:,.1f} MiB of free space"
                )

    def _sizes(self, trainer: Trainer, module: LightningModule) -> Iterator[tuple[Path, int]]:
        """Yield (folder, bytes) of the model and of each kind of checkpoint."""
        backbone: Any = module.backbone
        trained = [weight for weight in backbone.parameters() if weight.requires_grad]
        saved = trained if backbone.has_adapter else list(backbone.parameters())
        state = _STATE * sum(weight.numel() for weight in trained)
        yield self.output, _bytes(saved) + (state if self.with_optimizer else 0)
        # A new checkpoint is complete before the one that it replaces is removed.
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint):
                count = max(callback.save_top_k, 0) + bool(callback.save_last) + 1
                yield Path(callback.dirpath or trainer.default_root_dir), count * (_bytes(trained) + state)
            elif isinstance(callback, FitCheckpoints) and callback.unfinished is not None:
                yield callback.unfinished.folder, (KEPT + 1) * (_bytes(trained) + state)


def _bytes(weights: list[nn.Parameter]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
