"""The memory that ``plan`` predicts for a training job."""

import json
from functools import partial
from pathlib import Path

import torch
from peers.job import Job
from transformers import AutoConfig

from guardreasoner.diagnosis.data_sizes import DataSizes
from guardreasoner.diagnosis.model_shape import ModelShape
from guardreasoner.diagnosis.run_plan import Memory, MemoryModel, Schedule, Settings
from guardreasoner.model.batch import common_prefix_length
from guardreasoner.model.lora import LoRA


def predicted(job: Job) -> Memory:
    """Return the predicted memory of a job on our side, whose steps all have the same examples."""
    rows = json.loads(Path(job.examples).read_text())
    step = [rows[number] for number in job.steps[0]]
    sizes = DataSizes(
        [len(row["prompt"]) for row in step],
        [tuple(map(len, row["completions"])) for row in step],
        common_prefix_length([tuple(row["prompt"]) for row in step]),
        "examples",
    )
    lora = None
    if (adapter := Path(job.model, "adapter_config.json")).is_file():
        saved = json.loads(adapter.read_text())
        lora = LoRA(saved["r"], saved["lora_alpha"], saved["lora_dropout"], sorted(saved["target_modules"]))
    settings = Settings(
        dtype="bfloat16" if job.dtype == "bf16" else "float32",
        quantization=job.options.get("quantization"),
        lora=lora,
        checkpointing=job.options.get("gradient_checkpointing", False),
        batch_size=len(step),
        micro_batch_size=job.micro_batch,
        micro_batch_tokens=None,
        max_length=job.limit,
        reference="Precomputed" if job.stage == "hsdpo" else None,
        reference_batch=job.options.get("reference_batch", 4),
        dropout=job.stage == "rsft",
        world=1,
        device="gpu" if job.device == "cuda" else "cpu",
    )
    schedule = Schedule(sizes, len(step), epochs=1)
    shape = ModelShape(AutoConfig.from_pretrained(job.base), job.base, None, job.base)
    optimizer = partial(torch.optim.AdamW, lr=job.lr, weight_decay=0.0, fused=True)
    return MemoryModel(shape, optimizer, lambda _: schedule).memory(settings)
