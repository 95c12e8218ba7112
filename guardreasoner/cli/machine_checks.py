"""Compare the trainer's settings with the machine: its GPUs, and the processes that torchrun or SLURM has started."""

import os
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from guardreasoner.errors import InputError


def check_machine(config: Namespace, where: str) -> None:
    """Require the GPUs that a config names, and as many processes as it says.

    Args:
        config: settings of the trainer.
        where: file and line that set ``trainer.accelerator``, or "".

    Raises:
        InputError: there is no GPU, or another number of processes was started.
    """
    if config.accelerator in ("gpu", "cuda") and not count_gpus():
        raise InputError(
            f"{where}trainer.accelerator: expected a GPU for {config.accelerator!r}, this machine has none",
            "leave that config out, or add --trainer.accelerator cpu --trainer.precision 32-true",
        )
    started = _started()
    expected = _devices(config.devices, config.accelerator) * config.num_nodes
    if started is not None and expected not in (0, started[1]):
        launcher, count = started
        raise InputError(
            f"trainer.devices × trainer.num_nodes: expected the {count} processes that {launcher} has started, "
            f"got {expected}",
            "as many processes a node as trainer.devices, and as many nodes as trainer.num_nodes",
        )


def count_gpus() -> int:
    """Return the number of GPUs of this machine."""
    return torch.cuda.device_count() or int(torch.backends.mps.is_available())


def _devices(devices: Any, accelerator: Any) -> int:
    """Return the number of processes of a node; 0 if it cannot be told."""
    if isinstance(devices, list):
        return len(devices)
    text = str(devices)
    if text in ("auto", "-1"):
        return count_gpus() or 1 if accelerator != "cpu" else 1
    return int(text) if text.isdigit() else 0


def _started() -> tuple[str, int] | None:
    """Return the launcher that has started this process and the number of its processes; None without one."""
    if TorchElasticEnvironment.detect():
        return "torchrun", int(os.environ["WORLD_SIZE"])
    if SLURMEnvironment.detect() and os.environ.get("SLURM_NTASKS", "").isdigit():
        count = int(os.environ["SLURM_NTASKS"])
        if count > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
            raise InputError(
                f"SLURM has started {count} processes, but does not say how many a node",
                "set #SBATCH --ntasks-per-node instead of --ntasks",
            )
        return "SLURM", count
    return None
