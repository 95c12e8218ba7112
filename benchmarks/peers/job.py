"""What a process is told: to train for some steps, to sample outputs, or to run a fit."""

from dataclasses import dataclass, field, replace
from typing import Any

MODULES = {"ours": "peers.our_side", "trl": "peers.trl_side", "peak": "peers.machine"}


@dataclass(frozen=True)
class Job:
    """One run of some optimizer steps, the first of which warms up and is not counted.

    Args:
        side: "ours", "trl", or "peak" for the peak of matrix products.
        stage: "hsdpo" or "rsft".
        model: model folder; an adapter's where one is trained.
        base: folder of the base model.
        examples: JSON file of ids (:mod:`peers.real_pairs`).
        steps: for each optimizer step the numbers of its examples, in the order in which they are served.
        micro_batch: examples that are computed at once.
        dtype: "fp32" or "bf16".
        device: "cpu" or "cuda".
        threads: of torch.
        lr: peak of the cosine, of AdamW without weight decay.
        beta: β.
        sft_coef: c.
        limit: longest example, in tokens.
        check: also give a hash of the ids that were trained on.
        options: of one side alone.
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
    check: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """What runs it."""
        return MODULES[self.side]

    def but(self, **changes: Any) -> "Job":
        """Return the job with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Sampling:
    """One run over all prompts.

    Args:
        side: "ours", "transformers", or "both" to compare their greedy outputs.
        model: model folder.
        prompts: JSON file (:mod:`peers.real_prompts`).
        at_once: outputs that are computed together.
        k: outputs a prompt.
        max_new_tokens: longest output.
        checked: prompts whose greedy outputs are compared.
        dtype: "fp32" or "bf16".
        device: "cpu" or "cuda".
        threads: of torch.
        seed: of the outputs.
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

    @property
    def module(self) -> str:
        """What runs it."""
        return "peers.generation"


@dataclass(frozen=True)
class Fit:
    """A fit as ``configs/hsdpo.yaml`` describes it, on other pairs.

    Args:
        module: what runs it: "peers.growing" or "peers.overhead".
        base: model folder.
        pairs: folder of records and rollouts (:mod:`peers.pair_files`).
        scratch: folder that the fit writes to.
        flags: more words for ``fit``.
        threads: of torch.
        repeats: runs of each side, where two sides are compared.
    """

    module: str
    base: str
    pairs: str
    scratch: str
    flags: list[str] = field(default_factory=list)
    threads: int = 2
    repeats: int = 1
