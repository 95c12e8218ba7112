"""What differs between models and data sets, for all stages at once."""

from dataclasses import dataclass

from guardreasoner.tasks import Task


@dataclass
class Recipe:
    """Values that configs refer to as ``${recipe.base}``, so that one overlay speaks for every stage.

    Args:
        tasks: what the guard decides, for prompt, parser, mining and scores alike; None: the three of GuardReasoner.
        parts: which parts of the training data to train or mine on, in configs/data/paper.yaml.
        base: the model that R-SFT starts from, a folder or a hub id.
        checkpoints: folder of the models that are made.
        logs: folder of rollouts, predictions and curves.
        vocabulary: tokens of the embedded base model.
        rsft_lr: peak learning rate of R-SFT.
        rsft_continued_lr: peak of the epochs that continue a finished R-SFT run.
        hsdpo_lr: peak learning rate of HS-DPO.
        rsft_batch_size: records per optimizer step.
        hsdpo_batch_size: pairs per optimizer step.
        micro_batch_size: records or pairs computed at once; None: the whole step.
        max_length: longest prompt and completion together, in tokens.
        skip_too_long: leave longer records or pairs out, and count them, instead of refusing to start.
        skip_contaminated: leave out, and count, training records whose prompt a benchmark holds, instead of refusing.
        max_new_tokens: longest output, in tokens.
        temperature: of sampled outputs.
        top_p: of sampled outputs.
        generation_batch_size: outputs computed at once.
    """

    tasks: list[Task] | None = None
    parts: list[str] | None = None
    base: str = "${recipe.checkpoints}/base"
    checkpoints: str = "checkpoints"
    logs: str = "logs"
    vocabulary: int = 1600
    rsft_lr: float = 5e-5
    rsft_continued_lr: float = 5e-5
    hsdpo_lr: float = 5e-6
    rsft_batch_size: int = 384
    hsdpo_batch_size: int = 256
    micro_batch_size: int | None = None
    max_length: int = 2048
    skip_too_long: bool = False
    skip_contaminated: bool = False
    max_new_tokens: int = 2048
    temperature: float = 1.0
    top_p: float = 0.95
    generation_batch_size: int = 128
