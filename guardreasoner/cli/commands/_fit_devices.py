"""What the trainer's settings of a fit say of its devices, read without having them."""

import re
from collections.abc import Mapping
from typing import Any

from guardreasoner.errors import InputError

_MIXED = {"bf16-mixed": "bfloat16", "bf16": "bfloat16"}


def mixed_dtype(trainer: Mapping[str, Any]) -> str | None:
    """Return the data type of matrix products with mixed precision; None without it."""
    return _MIXED.get(str(trainer.get("precision")))


def process_count(trainer: Mapping[str, Any], device: str) -> int:
    """Return the number of processes of a fit.

    Args:
        trainer: settings of the trainer.
        device: "cpu" or "gpu".

    Raises:
        InputError: it is the number of GPUs of this machine, which has none.
    """
    from guardreasoner.cli.machine_checks import count_gpus

    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if "," in str(devices):  # indices of GPUs, as a list or as text
        count = len(devices if isinstance(devices, list) else devices.strip(",").split(","))
    elif str(devices) in ("auto", "-1"):
        count = 1 if device == "cpu" else count_gpus()
        if not count:
            raise InputError(
                f"trainer.devices: {devices}: plan needs the number of devices, since this machine has no GPU",
                "--trainer.devices 8",
            )
    else:
        count = int(devices) if str(devices).isdigit() and int(devices) > 0 else 1
    return count * (nodes if isinstance(nodes, int) else 1)


def flags_without_gpu(trainer: Mapping[str, Any]) -> list[str]:
    """Return the flags with which the config of a fit on GPUs is accepted on a machine that has none."""
    from guardreasoner.cli.machine_checks import count_gpus

    if trainer.get("accelerator") not in ("gpu", "cuda") or count_gpus():
        return []
    return ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]


def sharded_dtype(trainer: Mapping[str, Any], dtype: str) -> str | None:
    """Return the data type in which sharded weights compute; None if each process has all weights.

    Args:
        trainer: settings of the trainer.
        dtype: data type of the loaded weights.

    Raises:
        InputError: another strategy than ``guardreasoner.ShardedStrategy`` shards them.
    """
    strategy = trainer.get("strategy")
    name = str(strategy.get("class_path") if isinstance(strategy, dict) else strategy)
    if name.rpartition(".")[2] == "ShardedStrategy":
        arguments = strategy.get("init_args") if isinstance(strategy, dict) else None
        return str((arguments or {}).get("compute_dtype") or dtype)
    if re.search("fsdp|deepspeed|modelparallel|sharded", name, re.I):
        raise InputError(
            f"trainer.strategy: {name}: of the strategies that shard weights, plan only knows "
            "guardreasoner.ShardedStrategy",
            "--config trainer/fsdp2",
        )
    return None
