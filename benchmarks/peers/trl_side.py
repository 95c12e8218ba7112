"""Measures TRL's trainers on the same token ids as our side."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.data_utils import pack_dataset

from peers.job import Job
from peers.machine import now, peak_mb, reset_peak, resident_mb, setup_torch, wait
from peers.process import read_job
from peers.real_pairs import fingerprint


class TRLStepTimer(TrainerCallback):
    """Records seconds, examples and loss of every step, and resets the peak memory before the first."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ends: list[float] = []
        self.parts: list[tuple[Tensor, int]] = []
        self.steps: list[tuple[Tensor, int]] = []
        self.rows: list[list[int]] = []

    def on_train_begin(self, *others: Any, **more: Any) -> None:
        """Start the timer."""
        reset_peak(self.job.device)
        self.ends.append(now(self.job.clock))

    def on_step_end(self, *others: Any, **more: Any) -> None:
        """Record the end of a step."""
        wait(self.job.device)
        self.ends.append(now(self.job.clock))
        losses, counts = zip(*self.parts, strict=True)
        self.steps.append((torch.stack(losses).sum(), sum(counts)))
        self.parts.clear()

    def record_batch(self, inputs: dict[str, Any]) -> int:
        """Return the number of examples in a micro-batch; record its rows if the job checks them."""
        ids = inputs["input_ids"]
        if "position_ids" in inputs:  # several examples in a row
            starts = (inputs["position_ids"].flatten() == 0).nonzero().flatten().tolist()
            rows = [ids.flatten()[a:b].tolist() for a, b in zip(starts, [*starts[1:], ids.numel()], strict=True)]
            self.rows += rows if self.job.check else []
            return len(starts)
        if self.job.check:
            self.rows += [row[mask.bool()].tolist() for row, mask in zip(ids, inputs["attention_mask"], strict=True)]
        return len(ids) // (2 if self.job.stage == "hsdpo" else 1)


def timed(trainer: type, timer: TRLStepTimer) -> type:
    """Return a trainer class that reports each micro-batch to a timer."""

    class Timed(trainer):  # type: ignore[misc, valid-type]
        reference_seconds = 0.0

        def training_step(self, model: Any, inputs: Any, *others: Any, **more: Any) -> Tensor:
            count = timer.record_batch(inputs)
            loss = super().training_step(model, inputs, *others, **more)
            timer.parts.append((loss, count))
            return loss

        def _precompute_ref_logps(self, *others: Any, **more: Any) -> Any:
            start_time = time.perf_counter()
            result = super()._precompute_ref_logps(*others, **more)
            self.reference_seconds = time.perf_counter() - start_time
            return result

    class Pretokenized(Timed):
        """Skips tokenization: DPOTrainer expects texts, but the data set already has its token columns."""

        def _prepare_dataset(self, dataset: Dataset, *others: Any, **more: Any) -> Dataset:
            return dataset

    return Pretokenized if issubclass(trainer, DPOTrainer) else Timed


def common_arguments(job: Job, output: str, accumulation: int) -> dict[str, Any]:
    """Return the arguments common to both trainers; nothing is logged, saved or evaluated."""
    return {
        "output_dir": output,
        "per_device_train_batch_size": job.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_checkpointing": job.options["gradient_checkpointing"],
        "torch_compile": job.options.get("compile", False),
        "learning_rate": job.lr,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "bf16": job.dtype == "bf16",
        "use_cpu": job.device == "cpu",
        "max_length": job.limit,
        "model_init_kwargs": {"dtype": "bfloat16" if job.dtype == "bf16" else "float32"},
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": job.device == "cuda",
    }


def dpo(job: Job, rows: list[dict[str, Any]], output: str, common: dict[str, Any], timer: TRLStepTimer) -> Any:
    """Return a DPOTrainer for the rows."""
    data = {
        "prompt_ids": [row["prompt"] for row in rows],
        "chosen_ids": [row["completions"][0] for row in rows],
        "rejected_ids": [row["completions"][1] for row in rows],
    }
    config = DPOConfig(
        **common_arguments(job, output, sum(map(len, job.steps)) // len(job.steps) // job.micro_batch),
        precompute_ref_log_probs=job.options["precompute"],
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, job.sft_coef],
        beta=job.beta,
    )
    return timed(DPOTrainer, timer)(args=config, train_dataset=Dataset.from_dict(data), **common)


def sft(job: Job, rows: list[dict[str, Any]], output: str, common: dict[str, Any], timer: TRLStepTimer) -> Any:
    """Return an SFTTrainer for the rows."""
    ids = [[*row["prompt"], *row["completions"][0]] for row in rows]
    masks = [[0] * len(row["prompt"]) + [1] * len(row["completions"][0]) for row in rows]
    data = Dataset.from_dict({"input_ids": ids, "completion_mask": masks})
    layout, batch = job.options["layout"], len(ids) // len(job.steps)
    overrides: dict[str, Any] = {"completion_only_loss": True}
    if layout == "padding_free":
        overrides |= {"padding_free": True, "max_length": None}
    if layout == "packing":  # a row holds several examples; a step has as many rows as hold its examples
        overrides |= {"packing": True, "max_length": job.options["width"]}
        batch = max(1, round(batch * len(pack_dataset(data, job.options["width"], "bfd")) / len(ids)))
    config = SFTConfig(**common_arguments(job, output, max(1, batch // job.micro_batch)) | overrides)
    return timed(SFTTrainer, timer)(args=config, train_dataset=data, **common)


def measure(job: Job, output: str) -> dict[str, Any]:
    """Train for the steps of a job, and return seconds, losses and memory."""
    setup_torch(job.device, job.threads)
    before = resident_mb(job.device)
    examples = json.loads(Path(job.examples).read_text())
    rows = [examples[number] for step in job.steps for number in step]
    timer = TRLStepTimer(job)
    common: dict[str, Any] = {
        "model": job.base,
        "processing_class": AutoTokenizer.from_pretrained(job.base),
        "callbacks": [timer],
    }
    adapter = Path(job.model, "adapter_config.json")
    if adapter.is_file():
        saved = json.loads(adapter.read_text())
        common["peft_config"] = LoraConfig(
            **{name: saved[name] for name in ("r", "lora_alpha", "lora_dropout", "target_modules", "task_type")}
        )
    trainer = (sft if job.stage == "rsft" else dpo)(job, rows, output, common, timer)
    if adapter.is_file():  # the same random values as on our side
        set_peft_model_state_dict(trainer.model, load_file(adapter.with_name("adapter_model.safetensors")))
    trainer.train()
    return {
        "seconds": [end - start for start, end in zip(timer.ends, timer.ends[1:], strict=False)],
        "examples": [count for _, count in timer.steps],
        "losses": [float(loss) for loss, _ in timer.steps],
        "reference_seconds": trainer.reference_seconds,
        "before_mb": before,
        "peak_mb": peak_mb(job.device),
        "rows": fingerprint(timer.rows) if job.check else None,
    }


if __name__ == "__main__":
    job, result_path = read_job(Job)
    with tempfile.TemporaryDirectory() as temporary:
        result_path.write_text(json.dumps(measure(job, temporary)))
