"""The message of a run that is out of memory: what the device has, what ``plan`` predicts, and what would fit."""

import os
import re
from typing import Any

import torch

from guardreasoner.errors import InputError, MachineFault

_ON_CPU = re.compile(r"DefaultCPUAllocator: (not enough memory|can't allocate memory)")
_ASKED = re.compile(r"tried to allocate ([\d.]+ [KMGT]iB|\d+ bytes)", re.I)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a tensor did not fit into the memory of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _ON_CPU.search(str(error)) is not None


def out_of_memory(error: BaseException, argv: list[str]) -> MachineFault:
    """Return the fault to report.

    Args:
        error: for which :func:`is_out_of_memory` holds.
        argv: verb and flags of the run.
    """
    device = "gpu" if isinstance(error, torch.OutOfMemoryError) else "cpu"
    name, total = _device(device)
    asked = _ASKED.search(str(error))
    message = f"out of memory: {name}" + (f" has {total / 1e9:.1f} GB" if total else "")
    message += f"; the run asked for another {asked[1]}" if asked else ""
    if argv[0] != "fit":
        return MachineFault(message, "lower the batch size of the generator: --recipe.generation_batch_size")
    from guardreasoner.cli.commands.plan import plan_of

    try:
        plan = plan_of(argv[1:], device, total)
    except InputError:  # plan does not know such runs
        return MachineFault(message, "lower data.micro_batch_size, or set model.backbone.gradient_checkpointing")
    message += f"; plan: this fit needs {plan['peak_bytes'] / 1e9:.1f} GB"
    return MachineFault(message, _hint(plan))


def _hint(plan: dict[str, Any]) -> str:
    changes = plan["changes"]
    if changes:
        flags = " ".join(change["flags"] for change in changes)
        peak = f"peak memory {changes[-1]['peak_bytes'] / 1e9:.1f} GB"
        return f"{flags}: {peak}" if plan["changes_are_enough"] else f"still too much with {flags}: {peak}"
    return "other processes may use the device too, or the plan is too low: lower data.micro_batch_size"


def _device(kind: str) -> tuple[str, float | None]:
    """Return name and bytes of the device; None if it is not known."""
    if kind == "cpu":
        return "this machine", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if not torch.cuda.is_available():
        return "the GPU", None
    return torch.cuda.get_device_name(), float(torch.cuda.get_device_properties().total_memory)
