"""Jobs of the measuring processes: training steps, sampling, scoring, or a whole fit."""

from dataclasses import dataclass, field, replace
from typing import Any

MODULES = {"ours": "peers.our_side", "trl": "peers.trl_side", "peak": "peers.machine"}


@dataclass(frozen=True)
class Job:
    """Training for some optimizer steps; the first step is a warm-up and not counted.

    Args:
        side: "ours", "trl", or "peak" for the peak rate of matrix products.
        stage: "hsdpo" or "rsft".
        model: Model folder; that of the adapter if one is trained.
        base: Folder of the base model.
        examples: JSON file of token ids (:mod:`peers.real_pairs`).
        steps: Example indices of each optimizer step, in order.
        micro_batch: Examples per micro-batch.
        dtype: "fp32" or "bf16".
        device: "cpu" or "cuda".
        threads: Number of torch threads.
        lr: Peak learning rate of the cosine schedule; AdamW without weight decay.
        beta: β of the preference loss.
        sft_coef: Coefficient c of the SFT loss.
        limit: Longest example, in tokens.
        clock: "wall", or "cpu" for the processor time of the process, which other processes do not change much.
        check: Whether to return a hash of the ids that were trained on.
        options: Settings of one side.
    """

    side: str
    stage: str = ""
    model: str = ""
    base: str = ""
    examples: str = ""
    steps: list[list[int]] = field(default_factory=list)
    micro_batch: int = 1
    dtype: str = "fp32"
    device: str = "cpu"
    threads: int = 2
    lr: float = 5e-5
    beta: float = 0.01
    sft_coef: float = 2.0
    limit: int = 1024
    clock: str = "wall"
    check: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """Module that runs the job."""
        return MODULES[self.side]

    def replaced(self, **changes: Any) -> "Job":
        """Return a copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Sampling:
    """Sampling k outputs for every prompt.

    Args:
        side: "ours", "transformers", or "both" to compare their greedy outputs.
        model: Model folder.
        prompts: JSON file of prompts (:mod:`peers.real_prompts`).
        at_once: Outputs per batch.
        k: Outputs per prompt.
        max_new_tokens: Longest output in tokens.
        checked: Number of prompts whose greedy outputs are compared.
        dtype: "fp32" or "bf16".
        device: "cpu" or "cuda".
        threads: Number of torch threads.
        seed: Seed of the outputs.
        clock: "wall" or "cpu", as for training.
    """

    side: str
    model: str
    prompts: str
    at_once: int = 32
    k: int = 4
    max_new_tokens: int = 512
    checked: int = 8
    dtype: str = "fp32"
    device: str = "cpu"
    threads: int = 2
    seed: int = 0
    clock: str = "wall"

    @property
    def module(self) -> str:
        """Module that runs the job."""
        return "peers.generation"


@dataclass(frozen=True)
class Scoring:
    """Scoring the continuations of every prompt.

    Args:
        side: "packed" or "rows" for our engines, or "logits" for padded rows with full logits.
        model: Model folder.
        requests: JSON file of prompts and continuations as token ids.
        at_once: Rows per batch of "logits".
        dtype: "fp32" or "bf16".
        device: "cpu" or "cuda".
        threads: Number of torch threads.
    """

    side: str
    model: str
    requests: str
    at_once: int = 8
    dtype: str = "fp32"
    device: str = "cpu"
    threads: int = 2

    @property
    def module(self) -> str:
        """Module that runs the job."""
        return "peers.continuations"


@dataclass(frozen=True)
class Fit:
    """A fit of ``configs/hsdpo.yaml`` on other pairs.

    Args:
        module: Module that runs the job: "peers.fit_phases" or "peers.overhead".
        base: Model folder.
        pairs: Folder of records and rollouts (:mod:`peers.pair_files`).
        scratch: Folder that the fit writes to.
        flags: Further arguments of ``fit``.
        threads: Number of torch threads.
        repeats: Runs of each side, if two sides are compared.
    """

    module: str
    base: str
    pairs: str
    scratch: str
    flags: list[str] = field(default_factory=list)
    threads: int = 2
    repeats: int = 1
