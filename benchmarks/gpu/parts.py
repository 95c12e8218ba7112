"""What is measured, most important first: the parts of the benchmark, each with a time limit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peers.job import Job, Sampling

from gpu.jobs import VLLM, Gradients, Model, Training
from guardreasoner.diagnosis.model_shape import PUBLISHED

STEPS = 5
"""Optimizer steps of a training, the first of which is a warm-up."""
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "vocab_size": 2000, "max_position_embeddings": 4096, "tie_word_embeddings": True}
"""Shape of ``--tiny``."""


@dataclass(frozen=True)
class Part:
    """One measurement.

    Args:
        name: Name of its row.
        kind: "peak", "model", "gradients", "training" or "decoding".
        job: Job of the measuring process.
        seconds: Time limit.
        needs: Files that earlier parts make.
        package: Package that it needs.
    """

    name: str
    kind: str
    job: Any
    seconds: int
    needs: tuple[str, ...] = ()
    package: str = ""

    @property
    def obstacle(self) -> str | None:
        """Why it cannot run; None if it can."""
        if self.package and find_spec(self.package) is None:
            return f"{self.package} is not installed"
        missing = next((path for path in self.needs if not Path(path).exists()), None)
        return f"{Path(missing).parent.name} was not made" if missing else None


@dataclass(frozen=True)
class Shape:
    """A model to measure.

    Args:
        name: Its name.
        folder: Folder of model, adapter and examples.
        micro_batch: Examples per micro-batch.
        examples: Examples per optimizer step.
    """

    name: str
    folder: Path
    micro_batch: int
    examples: int

    def job(self, stage: str, tuning: str, device: str, threads: int, side: str = "ours", **options: Any) -> Job:
        """Return a training job: "full", "LoRA" or "4-bit"."""
        base = str(self.folder / "base")
        examples = self.examples if stage == "rsft" else self.examples // 2
        if side == "ours":
            options = {"collate": "packed"} | options | ({"quantization": "4bit"} if tuning == "4-bit" else {})
        return Job(
            side=side,
            stage=stage,
            model=base if tuning == "full" else str(self.folder / "adapter"),
            base=base,
            examples=str(self.folder / f"{stage}.json"),
            steps=[list(range(examples))] * STEPS,
            micro_batch=min(examples, self.micro_batch if stage == "rsft" else max(1, self.micro_batch // 2)),
            dtype="bf16",
            device=device,
            threads=threads,
            options=options,
        )


def parts(work: Path, pretrained: str, predictions: Path, device: str, threads: int, tiny: bool) -> Iterator[Part]:
    """Yield the parts.

    Args:
        work: Folder of models.
        pretrained: Where SmolLM2 comes from.
        predictions: Folder of published predictions.
        device: "cuda" or "cpu".
        threads: Number of torch threads.
        tiny: Tiny shapes instead of the real ones, and no SmolLM2.
    """
    size = {"examples": 4, "longest": 96, "outputs": 8} if tiny else {"examples": 16, "longest": 768, "outputs": 128}
    made = {"device": device, "threads": threads, **size}
    suffix = ", tiny" if tiny else ""
    one, three, smol = (
        Shape(name + suffix, work / name, batch, size["examples"])
        for name, batch in (("Llama-3.2-1B", 8), ("Llama-3.2-3B", 4), ("SmolLM2-135M", 8))
    )
    yield Part("matrix products", "peak", Job("peak", dtype="bf16", device=device, threads=threads), 60)
    for shape in (one, three):
        values = TINY if tiny else PUBLISHED[f"meta-llama/{shape.folder.name}"]
        job = Model(str(shape.folder), dict(values), **made)
        yield Part(f"make {shape.name}, random weights", "model", job, 150)
        if shape is one:
            yield _gradients(shape, device, threads)
            for tuning in ("full", "LoRA", "4-bit"):
                yield _training(shape, "rsft", tuning, device, threads)
            for tuning in ("full", "LoRA"):
                yield _training(shape, "hsdpo", tuning, device, threads)
            yield _training(shape, "rsft", "full", device, threads, gradient_checkpointing=True)
            yield _sharded(shape, device, threads)
            yield _decoding(shape, "ours", device, threads, size["outputs"])
            yield _trl(one, "hsdpo", device, threads, size["longest"], precompute=True)
            for layout in ("padding_free", "padded", "packing"):
                yield _trl(one, "rsft", device, threads, size["longest"], layout=layout, width=size["longest"])
            yield _decoding(one, "transformers", device, threads, size["outputs"])
        else:
            yield _training(shape, "rsft", "full", device, threads, gradient_checkpointing=True)
            yield _training(shape, "rsft", "4-bit", device, threads)
            yield _training(shape, "hsdpo", "LoRA", device, threads)
            yield _training(shape, "hsdpo", "4-bit", device, threads, gradient_checkpointing=True)
    if not tiny:
        job = Model(str(smol.folder), pretrained=pretrained, predictions=str(predictions), **made)
        yield Part(f"make {smol.name}, its own weights", "model", job, 120)
        yield _gradients(smol, device, threads)
        for tuning in ("full", "LoRA", "4-bit"):
            yield _training(smol, "rsft", tuning, device, threads)
        yield _training(smol, "hsdpo", "full", device, threads)
        yield _decoding(smol, "ours", device, threads, size["outputs"])
    job = VLLM(str(one.folder / "base"), str(one.folder / "prompts.json"), threads=threads)
    yield Part(f"decode {one.name}: vLLM", "decoding", job, 180, _needs(one), "vllm")


def _needs(shape: Shape) -> tuple[str, ...]:
    """Return the last files that the making of a model writes."""
    return str(shape.folder / "prompts.json"), str(shape.folder / "adapter" / "adapter_config.json")


def _gradients(shape: Shape, device: str, threads: int) -> Part:
    job = Gradients(str(shape.folder / "base"), str(shape.folder / "hsdpo.json"), device=device, threads=threads)
    return Part(f"gradients of {shape.name}", "gradients", job, 150, _needs(shape))


def _training(shape: Shape, stage: str, tuning: str, device: str, threads: int, **options: Any) -> Part:
    job = Training(shape.job(stage, tuning, device, threads, **options), threads=threads)
    name = f"{_stage(stage)} {shape.name}, {tuning}" + (", checkpointing" if options else "")
    package = "bitsandbytes" if tuning == "4-bit" else ""
    # A large base model takes half a minute to read and check.
    return Part(name, "training", job, 90, _needs(shape), package)


def _sharded(shape: Shape, device: str, threads: int) -> Part:
    job = Training(shape.job("rsft", "full", device, threads), shards=True, threads=threads)
    return Part(f"R-SFT {shape.name}, full, FSDP2 in one process", "training", job, 60, _needs(shape))


def _trl(shape: Shape, stage: str, device: str, threads: int, longest: int, **options: Any) -> Part:
    options = {"gradient_checkpointing": False, **options}
    job = shape.job(stage, "full", device, threads, "trl", **options)
    if options.get("layout") == "packing":
        job = replace(job, micro_batch=max(1, job.micro_batch // 2))
    layout = options.get("layout", "precomputed reference").replace("_", "-")
    return Part(f"{_stage(stage)} {shape.name}, full: TRL, {layout}", "training", job, 60, _needs(shape), "trl")


def _decoding(shape: Shape, side: str, device: str, threads: int, outputs: int) -> Part:
    prompts = str(shape.folder / "prompts.json")
    base = str(shape.folder / "base")
    job = Sampling(side, base, prompts, at_once=outputs, dtype="bf16", device=device, threads=threads)
    name = {"ours": "local engine"}.get(side, side)
    return Part(f"decode {shape.name}: {name}", "decoding", job, 60, _needs(shape))


def _stage(stage: str) -> str:
    return {"rsft": "R-SFT", "hsdpo": "HS-DPO"}[stage]
