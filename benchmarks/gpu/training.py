"""Trains for a few steps on our side and measures them, beside the memory that ``plan`` predicts."""

import json
import tempfile
from dataclasses import replace
from typing import Any

import torch
from peers import our_side
from peers.job import Job
from peers.process import read_job

from gpu.jobs import Training
from gpu.predicted import predicted
from gpu.sharded import ShardedBackbone, process_group
from guardreasoner.model.backbone import Backbone


def device_mb(device: str, peak_mb: float) -> float:
    """Return the peak of a process's memory on the device: with CUDA, what its allocator holds, and the context."""
    if device != "cuda":
        return peak_mb
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    return (torch.cuda.max_memory_reserved() + context) / 1e6


def measure(training: Training) -> dict[str, Any]:
    """Return the measurements of :func:`peers.our_side.measure`, and the peak memory on the device."""
    job = training.job
    with tempfile.TemporaryDirectory() as folder:
        if training.shards:
            ShardedBackbone.device = job.device
            with process_group(job.device):
                measured = our_side.measure(job, folder, ShardedBackbone)
        else:
            measured = our_side.measure(job, folder, Backbone)
    return {**measured, "device_mb": device_mb(job.device, measured["peak_mb"])}


if __name__ == "__main__":
    training, result_path = read_job(Training)
    training = replace(training, job=Job(**training.job))  # type: ignore[arg-type]
    plan = {} if training.shards else {"predicted_mb": predicted(training.job).phases["training"]}
    plan = {name: sum(parts.values()) / 1e6 for name, parts in plan.items()}
    result_path.write_text(json.dumps(plan))  # is kept if the training runs out of memory
    result_path.write_text(json.dumps({**plan, **measure(training)}))
