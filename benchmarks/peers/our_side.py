"""Our side: the real modules, run by Lightning, as ``fit`` runs them."""

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
from guardreasoner.model.log_probs import sequence_logps
from guardreasoner.model.packed_attention import SharedPrefix
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.losses import dpo, margin
from guardreasoner.training.reference import Precomputed
from guardreasoner.training.rsft import RSFTModule
from peers.job import Job
from peers.machine import peak_mb, reset_peak, resident_mb, setup_torch, wait
from peers.process import told
from peers.real_pairs import fingerprint


class Steps(LightningDataModule):
    """The examples of a job, served as whole optimizer steps in the order that it says."""

    def __init__(self, job: Job, padding: int) -> None:
        super().__init__()
        rows = json.loads(Path(job.examples).read_text())
        self.all = [Example(row["id"], tuple(row["prompt"]), tuple(map(tuple, row["completions"]))) for row in rows]
        self.job = job
        self.padding = padding

    def examples(self) -> list[Example]:
        """Return every example that the reference will be asked for."""
        return [self.all[number] for number in sorted({number for step in self.job.steps for number in step})]

    def train_dataloader(self) -> DataLoader:
        """Return the loader of the steps."""
        collate = StepCollator(self.padding, self.job.micro_batch, collator(self.job.options["collate"]))
        loader: Any = DataLoader(self.all, batch_sampler=self.job.steps, collate_fn=collate)  # type: ignore[arg-type]
        return loader


class Timed(Precomputed):
    """Stored reference values, with the time that they took."""

    seconds = 0.0

    def prepare(self, backbone: Backbone, examples: Any) -> None:
        """Compute them."""
        began = time.perf_counter()
        super().prepare(backbone, examples)
        self.seconds = time.perf_counter() - began


class TRLReduction(HSDPOModule):
    """Our per-token values under TRL's reduction: its SFT term is a token mean over the micro-batch, not over pairs."""

    def _shares(self, batch: Batch, pairs: int, prefix: SharedPrefix | None = None) -> dict[str, Tensor]:
        values = self.backbone.completion_logps(batch, prefix)
        policy = sequence_logps(values, batch.sequence, batch.sequences)
        assert self.reference is not None
        chosen, rejected = (policy - self.reference.sequence_logps(batch).to(policy)).chunk(2)
        gap = margin(chosen, rejected, torch.zeros_like(chosen), torch.zeros_like(rejected))
        count = len(batch.ids)
        sft = -values[batch.sequence < count].mean()
        loss = dpo(gap, self.beta).mean() + self.sft_coef * sft
        return {"loss": loss * count / pairs, "margin": gap.sum() / pairs}


class Clock(Callback):
    """Keeps the seconds and the loss of every step, and the peak of memory since the first."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ends: list[float] = []
        self.losses: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Start."""
        reset_peak(self.device)
        self.ends.append(time.perf_counter())

    def on_train_batch_end(self, trainer: Trainer, module: Any, *others: Any) -> None:
        """Stop a step."""
        wait(self.device)
        self.ends.append(time.perf_counter())
        self.losses.append(trainer.callback_metrics["train/loss"].detach().clone())

    @property
    def seconds(self) -> list[float]:
        """Of each step, the time to fetch it included."""
        return [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]


def collator(name: str) -> Any:
    """Return a layout of micro-batches by name."""
    if name == "two_row":
        return two_row
    from guardreasoner.model.packing import packed

    return packed


def measure(job: Job, folder: str) -> dict[str, Any]:
    """Train for the steps of a job; return seconds, losses and memory."""
    setup_torch(job.device, job.threads)
    before = resident_mb(job.device)
    dtype: Any = "bfloat16" if job.dtype == "bf16" else "float32"
    backbone = Backbone(job.model, dtype=dtype, compile=job.options.get("compile", False))
    make = {"optimizer": lambda weights: torch.optim.AdamW(weights, lr=job.lr, weight_decay=0.0, fused=True)}
    reference = Timed(folder, batch_size=job.options.get("reference_batch", 4))
    module: Any
    if job.stage == "rsft":
        module = RSFTModule(backbone, **make)
    else:
        kind = TRLReduction if job.options.get("trl_reduction") else HSDPOModule
        module = kind(backbone, reference, beta=job.beta, sft_coef=job.sft_coef, **make)
    clock, data = Clock(job.device), Steps(job, backbone.prompt_tokenizer.padding)
    trainer = Trainer(
        accelerator="gpu" if job.device == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    trainer.fit(module, datamodule=data)
    served = [data.all[number] for step in job.steps for number in step]
    return {
        "seconds": clock.seconds,
        "examples": [len(step) for step in job.steps],
        "losses": [float(loss) for loss in clock.losses],
        "reference_seconds": reference.seconds,
        "before_mb": before,
        "peak_mb": peak_mb(job.device),
        "rows": fingerprint([e.prompt + c for e in served for c in e.completions]) if job.check else None,
    }


if __name__ == "__main__":
    wanted, place = told(Job)
    with tempfile.TemporaryDirectory() as temporary:
        place.write_text(json.dumps(measure(wanted, temporary)))
