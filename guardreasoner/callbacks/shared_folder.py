"""Require that all nodes of a run see the folder in which it writes, before a model is loaded."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from guardreasoner.errors import InputError
from guardreasoner.workflow.output_lock import lock_path


class SharedFolder(Callback):
    """Refuse a run over several nodes whose output, checkpoints and logs are not in a shared folder.

    The first process holds the lock file beside the output; every other one must see it.

    Args:
        output: Folder that the run writes.
    """

    def __init__(self, output: str) -> None:
        self.output = Path(output)

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Compare what the nodes see.

        Raises:
            InputError: a node does not see the folder of the first one; raised on all of them.
        """
        if trainer.num_nodes == 1:
            return
        strategy: Any = trainer.strategy
        path = lock_path(self.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.listdir(path.parent)  # a network file system then looks again
        is_known = bool(strategy.broadcast(path.exists()))  # without a lock, as in Python, nothing can be said
        flags = torch.zeros(trainer.num_nodes, device=strategy.root_device)
        flags[trainer.node_rank] = float(is_known and not path.exists())
        missing = strategy.reduce(flags, reduce_op="sum").nonzero()[:, 0].tolist()
        if missing:
            raise InputError(
                f"output: {self.output}: node {missing[0]} does not see the files of node 0 in this folder",
                "several nodes need one shared folder for checkpoints and logs; start all of them in it",
            )
