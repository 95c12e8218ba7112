"""The plan of a fit: its steps, its memory by part, and what would lower it, before anything is loaded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.optim import Optimizer

from guardreasoner.diagnosis.data_sizes import DataSizes
from guardreasoner.diagnosis.model_shape import ModelShape
from guardreasoner.diagnosis.sharded_memory import GATHERED, sharded_bytes
from guardreasoner.diagnosis.step_memory import (
    CACHE,
    GRADIENTS,
    OPTIMIZER,
    REFERENCE,
    WEIGHTS,
    Parameters,
    optimizer_bytes,
    put_on_meta,
    set_mode,
    trace_step,
)
from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Example, StepCollator
from guardreasoner.model.lora import LoRA
from guardreasoner.model.packing import packed
from guardreasoner.training.sampler import StepSampler

PROCESS, ALLOCATOR = "process", "allocator"
CPU_PROCESS = 0.65e9
"""Bytes of a fit's process on a CPU with next to no model: Python, imported packages, tokenized data; measured."""
CPU_ALLOCATOR = {"full": 0.45, "LoRA": 0.75, "4bit": 0.75}
"""By what is trained, the bytes that glibc's allocator holds beside those of the tensors of a pass, as a share of
these; measured (docs/plan.md). The heap keeps memory between blocks that live on, such as the small gradients of an
adapter, when the large tensors around them are freed and the next step has tensors of other sizes."""
_LASTING = (WEIGHTS, GRADIENTS, OPTIMIZER, REFERENCE, CACHE)
"""Parts that are allocated once and not freed between steps."""
GPU_PROCESS = 0.6e9
"""Bytes of a CUDA context with the libraries' workspaces; assumed, not measured."""
GPU_ALLOCATOR = 0.05
"""Share of the tensors' bytes that the caching allocator holds in addition; assumed, not measured."""


@dataclass(frozen=True)
class Settings:
    """What determines the memory of a fit on one device.

    Args:
        dtype: data type of the loaded weights.
        quantization: "4bit" or None.
        lora: the adapter; None trains all weights.
        checkpointing: whether activations are computed again in the backward pass.
        batch_size: examples per optimizer step, over all processes.
        micro_batch_size: examples per forward pass.
        micro_batch_tokens: most tokens per forward pass; None for no limit.
        max_length: most tokens of an example.
        reference: "FrozenCopy", "FrozenAdapter", "Precomputed", or None.
        reference_batch: examples per forward pass of ``Precomputed``.
        dropout: whether dropout is on.
        world: number of processes that share a step.
        device: "cpu" or "gpu".
        mixed: data type of matrix products with mixed precision; None without it.
        sharded: data type in which sharded weights (FSDP2) compute; None: each process has all weights.
    """

    dtype: str
    quantization: str | None
    lora: LoRA | None
    checkpointing: bool
    batch_size: int
    micro_batch_size: int
    micro_batch_tokens: int | None
    max_length: int
    reference: str | None
    reference_batch: int
    dropout: bool
    world: int
    device: str
    mixed: str | None = None
    sharded: str | None = None

    @property
    def tuning(self) -> str:
        """What is trained: "full", "LoRA" or "4bit"."""
        return self.quantization or ("full" if self.lora is None else "LoRA")


@dataclass(frozen=True)
class Mining:
    """Settings of mining with the local engine that determine its memory.

    Args:
        k: outputs per record.
        batch_size: outputs generated at once by a worker.
        max_new_tokens: longest output, in tokens.
        max_cache_tokens: most tokens of a worker's cache; None for no bound.
        workers: chunks that are generated at once.
        dtype: data type of the loaded weights.
        page: tokens of a page of the cache.
        prefill: most prompt tokens in one row; a longer prompt has a row of its own.
    """

    k: int
    batch_size: int
    max_new_tokens: int
    max_cache_tokens: int | None
    workers: int
    dtype: str
    page: int
    prefill: int

    def prompts(self, longest: int) -> int:
        """Return the prompts whose outputs a worker generates at once, if each has ``longest`` tokens of its own."""
        rows = self.batch_size // self.k
        if self.max_cache_tokens is not None:
            rows = min(rows, self.max_cache_tokens // (longest + self.k * self.max_new_tokens))
        return max(1, rows)

    def cache_tokens(self, longest: int) -> int:
        """Return the tokens of a worker's cache when every output reaches its longest length, in whole pages."""
        prompt, output = (-(-tokens // self.page) * self.page for tokens in (longest, self.max_new_tokens))
        return self.prompts(longest) * (prompt + self.k * output)


@dataclass(frozen=True)
class Change:
    """A change that saves memory.

    Args:
        flags: flags of the change.
        effect: what it does to the run.
        peak: bytes at the peak with it and all changes before it.
    """

    flags: str
    effect: str
    peak: float


class Schedule:
    """The steps of a fit.

    Args:
        sizes: the examples.
        batch_size: examples per optimizer step.
        epochs: epochs of the schedule.
        start_epoch: first epoch of this run.
        seed: seed of the order.
        bucket_steps: steps whose examples are sorted by length together.
        limit: most steps; None for no limit.
    """

    def __init__(
        self,
        sizes: DataSizes,
        batch_size: int,
        epochs: int,
        start_epoch: int = 0,
        seed: int = 0,
        bucket_steps: int = 1,
        limit: int | None = None,
    ) -> None:
        self.sizes = sizes
        sampler = StepSampler(sizes.lengths, batch_size, epochs, start_epoch, seed, bucket_steps)
        self.steps_per_epoch = sampler.steps_per_epoch
        self.steps = len(sampler) if limit is None else min(limit, len(sampler))
        self._sampler = sampler
        self.tokens = self.packed_tokens = self.predicted_tokens = 0
        for step in range(self.steps):
            for index in sampler.step(step):
                prompt, completions = sizes.prompts[index], sizes.completions[index]
                self.tokens += prompt * len(completions) + sum(completions)
                self.packed_tokens += prompt - sizes.prefix + sum(completions) - len(completions)
                self.predicted_tokens += sum(completions)

    def largest(self, size: int, tokens: int | None) -> list[Example]:
        """Return the examples of the step whose first micro-batches have most tokens, longest first."""
        best, most = None, -1
        for step in range(self.steps):
            indices = sorted(self._sampler.step(step), key=lambda index: self.sizes.lengths[index], reverse=True)
            counts = [self.sizes.prompts[index] + sum(self.sizes.completions[index]) for index in indices]
            # the second one is computed beside the gradients of the first
            total = sum(counts[:size]) + sum(counts[size : 2 * size])
            if tokens is not None:
                total = min(total, 2 * tokens) + max(counts)
            if total > most:
                best, most = indices, total
        assert best is not None
        return [self.sizes.example(index) for index in best]


@dataclass(frozen=True)
class Memory:
    """Memory of a fit on one device.

    Args:
        phases: bytes by part at the peak of each phase: "training" and, with stored reference values, "reference".
        parameters: numbers of parameters.
    """

    phases: Mapping[str, Mapping[str, float]]
    parameters: Parameters

    @property
    def phase(self) -> str:
        """Name of the phase with the highest peak."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def parts(self) -> Mapping[str, float]:
        """Bytes by part at the peak."""
        return self.phases[self.phase]

    @property
    def peak(self) -> float:
        """Bytes at the peak."""
        return sum(self.parts.values())


class MemoryModel:
    """Computes the memory of a fit under changed settings.

    Args:
        shape: shape of the base model.
        optimizer: function of the parameters.
        schedule: takes settings, returns the steps of the fit with them.
    """

    def __init__(
        self,
        shape: ModelShape,
        optimizer: Callable[[Any], Optimizer],
        schedule: Callable[[Settings], Schedule],
    ) -> None:
        self.shape = shape
        self.optimizer = optimizer
        self.schedule = schedule

    def memory(self, settings: Settings) -> Memory:
        """Return the memory of a fit.

        Raises:
            InputError: the shape cannot be used.
        """
        backbone = Backbone(
            self.shape.source,
            settings.lora,
            "4bit" if settings.quantization else None,
            settings.dtype,  # type: ignore[arg-type]
            gradient_checkpointing=settings.checkpointing,
        )
        parameters = put_on_meta(backbone, self.shape.config, settings.lora)
        set_mode(backbone, settings.dropout)
        schedule = self.schedule(settings)
        examples = schedule.largest(settings.micro_batch_size, settings.micro_batch_tokens)
        tokens = settings.micro_batch_tokens
        step = StepCollator(0, settings.micro_batch_size, packed, 0, settings.world, tokens)(examples)
        frozen = settings.reference if settings.reference in ("FrozenCopy", "FrozenAdapter") else None
        mixed = getattr(torch, settings.mixed) if settings.mixed else None
        shares: Mapping[str, float] = {}
        if settings.sharded:
            compute_dtype = getattr(torch, settings.sharded)
            shares = sharded_bytes(backbone, settings.world, compute_dtype)
            backbone.network.to(compute_dtype)
        traced = trace_step(backbone, step.batches[:2], frozen=frozen, mixed=mixed, keeps_gradients=not shares)
        training: dict[str, float] = {**traced, **shares}
        state = optimizer_bytes(self.optimizer, trained_dtype(settings)) * parameters.trained
        training[OPTIMIZER] = state / (settings.world if settings.sharded else 1)
        if settings.world > 1 and not settings.sharded:
            training["DDP buckets"] = parameters.trained_bytes
        phases = {"training": training}
        if settings.reference == "Precomputed":
            backbone.eval()
            scored = StepCollator(0, settings.reference_batch, packed)(examples_of(schedule, settings.reference_batch))
            whole = {name: size for name, size in shares.items() if name in (WEIGHTS, GATHERED)}
            scoring = trace_step(backbone, scored.batches[:1], trains=False, mixed=mixed)
            phases["reference values"] = {**scoring, **whole}
        return Memory({name: with_process(parts, settings) for name, parts in phases.items()}, parameters)

    def mining(self, settings: Settings, mining: Mining) -> Mapping[str, float]:
        """Return the bytes by part when every output reaches its longest length."""
        config = self.shape.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        kv_heads = config.num_key_value_heads or config.num_attention_heads
        element = 2 if mining.dtype != "float32" else 4
        per_token = 2 * config.num_hidden_layers * kv_heads * size * element
        sizes = self.schedule(settings).sizes
        longest = max(sizes.prompts) - sizes.prefix
        prompts = mining.prompts(longest)
        cache = mining.cache_tokens(longest) * per_token
        prefill = max(longest, min(mining.prefill, prompts * longest)) * (
            per_token + element * (4 * config.hidden_size + 2 * config.intermediate_size)
        )
        # logits, their float copy, probabilities, and the sorted copies of a wide nucleus
        logits = prompts * mining.k * config.vocab_size * (element + 4 + 4)
        parts: dict[str, float] = {WEIGHTS: self._loaded_bytes(replace(settings, dtype=mining.dtype))}
        parts |= {CACHE: mining.workers * cache, "prefill": mining.workers * prefill, "logits": mining.workers * logits}
        return with_process(parts, settings)

    def _loaded_bytes(self, settings: Settings) -> float:
        backbone = Backbone("shape", settings.lora, "4bit" if settings.quantization else None, settings.dtype)  # type: ignore[arg-type]
        put_on_meta(backbone, self.shape.config, settings.lora)
        return sum(weight.numel() * weight.element_size() for weight in backbone.network.parameters())

    def changes(self, settings: Settings, limit: float) -> tuple[list[Change], bool]:
        """Return a change that lowers the peak to ``limit``, or several made together; and whether they are enough.

        Single changes come first, in an order from those that leave the result of the run as it is to those that
        change the model. If no single one is enough, all are added up until the fit fits.

        Args:
            settings: settings of the fit.
            limit: bytes of the device.
        """
        found: list[Change] = []
        for changed, flags, effect in _single_changes(settings):
            peak = self._peak(changed)
            if peak <= limit:
                return [Change(flags, effect, peak)], True
        current = settings
        while more := next(iter(_single_changes(current, together=True)), None):
            current, flags, effect = more
            peak = self._peak(current)
            found.append(Change(flags, effect, peak))
            if peak <= limit:
                return found, True
        return found, False

    def _peak(self, settings: Settings) -> float:
        try:
            return self.memory(settings).peak
        except InputError:
            return float("inf")


def trained_dtype(settings: Settings) -> torch.dtype:
    """Return the data type of the trained weights; peft keeps adapters in float32."""
    dtype: torch.dtype = torch.float32 if settings.lora else getattr(torch, settings.dtype)
    return dtype


def examples_of(schedule: Schedule, count: int) -> list[Example]:
    """Return the longest examples, which stored reference values are computed for together."""
    lengths = schedule.sizes.lengths
    indices = sorted(range(len(lengths)), key=lengths.__getitem__)[-count:]
    return [schedule.sizes.example(index) for index in indices]


def with_process(parts: Mapping[str, float], settings: Settings) -> dict[str, float]:
    """Add the bytes of the process, or of the CUDA context and allocator, to those of the tensors."""
    if settings.device == "gpu":
        return {**parts, PROCESS: GPU_PROCESS, ALLOCATOR: GPU_ALLOCATOR * sum(parts.values())}
    freed = sum(size for name, size in parts.items() if name not in _LASTING)
    return {**parts, PROCESS: CPU_PROCESS, ALLOCATOR: CPU_ALLOCATOR[settings.tuning] * freed}


def _single_changes(settings: Settings, together: bool = False) -> Iterator[tuple[Settings, str, str]]:
    """Yield (changed settings, flags, effect); ``together`` yields what is left to change, in the same order."""
    size = settings.micro_batch_size
    sizes = [1] if together else [size // 2**power for power in range(1, size.bit_length())]
    for smaller in sizes:
        if 1 <= smaller < size:
            changed = replace(
                settings, micro_batch_size=smaller, reference_batch=min(smaller, settings.reference_batch)
            )
            flags = f"--data.micro_batch_size {smaller}"
            if settings.reference == "Precomputed":
                flags += f" --model.reference.batch_size {changed.reference_batch}"
            yield changed, flags, "same result"
    if not settings.checkpointing:
        flags = "--model.backbone.gradient_checkpointing true"
        yield replace(settings, checkpointing=True), flags, "same result, about a third slower"
    if settings.reference in ("FrozenCopy", "FrozenAdapter"):
        yield replace(settings, reference="Precomputed"), "--model.reference guardreasoner.Precomputed", "same result"
    if settings.dtype == "float32" and settings.device == "gpu" and not settings.sharded:
        yield replace(settings, dtype="bfloat16"), "--model.backbone.dtype bfloat16", "weights rounded to 8 bits"
    has_one_dtype = not settings.sharded or settings.dtype == "float32"  # adapters are float32
    if settings.lora is None and has_one_dtype:
        lora = "{r: 16, alpha: 32, dropout: 0.05, target_modules: all-linear}"
        changed = replace(settings, lora=LoRA())
        if settings.reference == "FrozenCopy":
            changed = replace(changed, reference="FrozenAdapter")
        yield changed, f'--model.backbone.lora "{lora}"', "trains an adapter instead of all weights"
    if settings.quantization is None and not settings.sharded and (settings.lora is not None or not together):
        if settings.lora is not None:
            changed = replace(settings, quantization="4bit")
            yield changed, "--model.backbone.quantization 4bit", "frozen weights in 4 bits"
        else:
            changed = replace(settings, lora=LoRA(), quantization="4bit")
            yield changed, "--config configs/model/qlora.yaml", "4-bit weights and an adapter"
    for share in (0.75, 0.5, 0.25):
        limit = int(settings.max_length * share)
        if limit >= 256:
            flags = f"--data.max_length {limit} --data.skip_too_long true"
            yield replace(settings, max_length=limit), flags, "leaves out longer examples"
