"""Measures our side: the training modules of ``fit``, run by Lightning."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, Example, StepCollator, two_row
from guardreasoner.model.log_probs import CompletionLogps, sequence_logps
from guardreasoner.model.packed_attention import SharedPrefix
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.losses import dpo, margin
from guardreasoner.training.reference import Precomputed
from guardreasoner.training.rsft import RSFTModule
from peers.job import Job
from peers.machine import now, peak_mb, reset_peak, resident_mb, setup_torch, wait
from peers.process import read_job
from peers.real_pairs import fingerprint


class JobData(LightningDataModule):
    """The examples of a job as optimizer steps, in the job's order."""

    def __init__(self, job: Job, padding: int) -> None:
        super().__init__()
        rows = json.loads(Path(job.examples).read_text())
        self.all = [Example(row["id"], tuple(row["prompt"]), tuple(map(tuple, row["completions"]))) for row in rows]
        self.job = job
        self.padding = padding

    def examples(self) -> list[Example]:
        """Return the examples for which the reference is computed."""
        return [self.all[number] for number in sorted({number for step in self.job.steps for number in step})]

    def train_dataloader(self) -> DataLoader:
        """Return the data loader."""
        collate = StepCollator(self.padding, self.job.micro_batch, collator(self.job.options["collate"]))
        loader: Any = DataLoader(self.all, batch_sampler=self.job.steps, collate_fn=collate)  # type: ignore[arg-type]
        return loader


class TimedReference(Precomputed):
    """Stored reference log-probabilities that record the time to compute them."""

    seconds = 0.0

    def prepare(self, backbone: Backbone, examples: Any, trainer: Any = None) -> None:
        """Compute the values and record the seconds."""
        start_time = time.perf_counter()
        super().prepare(backbone, examples, trainer)
        self.seconds = time.perf_counter() - start_time


class TRLReduction(HSDPOModule):
    """HS-DPO with TRL's reduction: the SFT loss is a token mean over the micro-batch instead of a mean over pairs."""

    def _contributions(
        self, batch: Batch, pairs: int, prefix: SharedPrefix | None = None, is_first_step: bool = False
    ) -> dict[str, Tensor]:
        values = self.backbone.completion_logps(batch, prefix)
        policy = sequence_logps(values, batch.sequence, batch.sequences)
        assert self.reference is not None
        logps = CompletionLogps(policy, batch.lengths, self.reference.sequence_logps(batch).to(policy))
        chosen, rejected = (logps.select(batch.number == number) for number in (0, 1))
        gap = margin(chosen, rejected)
        count = len(batch.ids)
        sft = -values[batch.number[batch.sequence] == 0].mean()
        loss = dpo(chosen, rejected, self.beta).mean() + self.sft_coef * sft
        return {"loss": loss * count / pairs, "margin": gap.sum() / pairs}


class OurStepTimer(Callback):
    """Records seconds and loss of every step, and resets the peak memory before the first."""

    def __init__(self, device: str, clock: str) -> None:
        self.device = device
        self.clock = clock
        self.ends: list[float] = []
        self.losses: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Start the timer."""
        reset_peak(self.device)
        self.ends.append(now(self.clock))

    def on_train_batch_end(self, trainer: Trainer, module: Any, *others: Any) -> None:
        """Record the end of a step."""
        wait(self.device)
        self.ends.append(now(self.clock))
        self.losses.append(trainer.callback_metrics["train/loss"].detach().clone())

    @property
    def seconds(self) -> list[float]:
        """Seconds of each step, including the time to load its data."""
        return [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]


def collator(name: str) -> Any:
    """Return a collator by name."""
    if name == "two_row":
        return two_row
    from guardreasoner.model.packing import packed

    return packed


def measure(job: Job, folder: str, backbone_class: type[Backbone] = Backbone) -> dict[str, Any]:
    """Train for the steps of a job, and return seconds, losses and memory.

    Args:
        job: The training.
        folder: Folder for the reference values.
        backbone_class: Class of the network.
    """
    setup_torch(job.device, job.threads)
    before = resident_mb(job.device)
    dtype: Any = "bfloat16" if job.dtype == "bf16" else "float32"
    backbone = backbone_class(
        job.model,
        quantization=job.options.get("quantization"),
        dtype=dtype,
        gradient_checkpointing=job.options.get("gradient_checkpointing", False),
        compile=job.options.get("compile", False),
    )
    settings = {"optimizer": lambda weights: torch.optim.AdamW(weights, lr=job.lr, weight_decay=0.0, fused=True)}
    reference = TimedReference(folder, batch_size=job.options.get("reference_batch", 4))
    module: Any
    if job.stage == "rsft":
        module = RSFTModule(backbone, **settings)
    else:
        module_class = TRLReduction if job.options.get("trl_reduction") else HSDPOModule
        module = module_class(backbone, reference, beta=job.beta, sft_coef=job.sft_coef, **settings)
    timer, data = OurStepTimer(job.device, job.clock), JobData(job, backbone.prompt_tokenizer.padding)
    trainer = Trainer(
        accelerator="gpu" if job.device == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[timer],
    )
    trainer.fit(module, datamodule=data)
    served = [data.all[number] for step in job.steps for number in step]
    return {
        "seconds": timer.seconds,
        "examples": [len(step) for step in job.steps],
        "losses": [float(loss) for loss in timer.losses],
        "reference_seconds": reference.seconds,
        "before_mb": before,
        "peak_mb": peak_mb(job.device),
        "rows": fingerprint([e.prompt + c for e in served for c in e.completions]) if job.check else None,
    }


if __name__ == "__main__":
    job, result_path = read_job(Job)
    with tempfile.TemporaryDirectory() as temporary:
        result_path.write_text(json.dumps(measure(job, temporary)))
