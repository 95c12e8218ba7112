"""Compares two updates of GRPO with TRL's GRPOTrainer: same weights, prompts, outputs, rewards and optimizer.

    PYTHONPATH=.:benchmarks python benchmarks/grpo_vs_trl.py --json benchmarks/results/grpo/trl.json

The outputs are sampled once by our engine and given to both sides. Both make two updates on them, so that in the second
one the ratio to the sampling policy is not 1 and the policy is away from the reference. Compared are the mean loss of
the two updates and the change of the weights, in float32. Nothing is timed.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from peers.random_model import make_llama, make_tokenizer
from torch import Tensor

from guardreasoner.generators.local import LocalGenerator
from guardreasoner.mining.grading import Grades
from guardreasoner.model.backbone import Backbone
from guardreasoner.sources.embedded import Embedded
from guardreasoner.training.group_sampler import Group, GroupSampler
from guardreasoner.training.grpo import GRPOModule
from guardreasoner.training.grpo_loss import constant, sequence_mean, token_mean
from guardreasoner.training.prompt_data import PromptDataModule

PROMPTS, K, NEW_TOKENS = 4, 4, 16
TEMPERATURE, LEARNING_RATE, CLIP = 0.9, 0.3, 0.05
SHAPE = {
    **{"vocab_size": 1600, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.1},
}
NORMALIZATIONS = {"dapo": token_mean, "grpo": sequence_mean, "dr_grpo": constant}
"""TRL's names of the loss and our functions."""
SETTINGS = (
    *(("dapo", 0.0, True), ("grpo", 0.0, True), ("dr_grpo", 0.0, True)),
    *(("dapo", 0.3, True), ("grpo", 0.3, False), ("dr_grpo", 0.3, True)),
)
"""TRL's name of the loss, β, and whether the divergence is multiplied by the ratio."""
END_TOKENS = range(1500, 1600)
"""Tokens that end an output, so that outputs differ in length."""
TOLERANCE = 2e-5
"""Largest difference of the losses, and of a weight's change relative to the largest change of any weight."""


class ListedRewards:
    """Rewards in thirds that do not depend on the outputs; the outputs of the first prompt all have the same."""

    def __init__(self) -> None:
        self.values = iter([1 / 3] * K + [(5 * index % 7 % 4) / 3 for index in range((PROMPTS - 1) * K)])

    def __call__(self, grades: Grades) -> float:
        return next(self.values)


def main() -> int:
    """Compare all settings; return 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file of the results")
    arguments = parser.parse_args()
    if find_spec("trl") is None:
        sys.exit("error: TRL is not installed\nhint: pip install --constraint constraints.txt --editable '.[bench]'")
    with tempfile.TemporaryDirectory() as place:
        rows = compare(Path(place))
    for row in rows:
        print(
            f"{row['loss_type']:8} β {row['beta']:<4} loss {row['our_loss']:+.6f} and {row['trl_loss']:+.6f}, "
            f"largest difference of a weight's change {row['weights']:.1e} of {row['moved']:.1e}"
        )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(any(differs(row) for row in rows))


def differs(row: dict[str, Any]) -> bool:
    """Return whether the two sides differ by more than the tolerance."""
    return bool(abs(row["our_loss"] - row["trl_loss"]) > TOLERANCE or row["weights"] > TOLERANCE * row["moved"])


def compare(place: Path) -> list[dict[str, Any]]:
    """Return losses and changes of the weights of both sides for each setting.

    Args:
        place: empty folder for the model.
    """
    make_tokenizer(place / "tokenizer")
    model = place / "model"
    make_llama(model, place / "tokenizer", SHAPE)
    start = {name: value.clone() for name, value in _loaded(model).network.state_dict().items()}
    rows = []
    for setting in SETTINGS:
        our_loss, ours, groups = train_ours(model, *setting)
        trl_loss, theirs = train_trl(model, *setting, groups, place / "trl")
        changes = {name: (ours[name] - value, theirs[name] - value) for name, value in start.items()}
        rows.append(
            {
                **dict(zip(("loss_type", "beta", "unbiased_kl"), setting, strict=True)),
                **{"our_loss": our_loss, "trl_loss": trl_loss},
                "lengths": sorted({len(output) for group in groups for output in group.outputs}),
                "weights": max(float((one - other).abs().max()) for one, other in changes.values()),
                "moved": max(float(other.abs().max()) for _, other in changes.values()),
            }
        )
    return rows


def train_ours(
    model: Path, loss_type: str, beta: float, unbiased: bool
) -> tuple[float, dict[str, Tensor], list[Group]]:
    """Make two updates; return the mean loss, the weights, and the outputs that were sampled before them."""
    backbone = _loaded(model)
    data = PromptDataModule(Embedded(train=PROMPTS), batch_size=PROMPTS, epochs=1, validation_share=0.0)
    module = GRPOModule(
        backbone,
        _engine,
        k=K,
        reward=ListedRewards(),
        beta=beta,
        unbiased_kl=unbiased,
        normalization=NORMALIZATIONS[loss_type],
        clip_low=CLIP,
        updates=2,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=LEARNING_RATE),
        max_grad_norm=0.0,
    )
    trainer = Trainer(
        **{"accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False, "enable_progress_bar": False},
        **{"enable_checkpointing": False, "enable_model_summary": False, "use_distributed_sampler": False},
    )
    trainer.fit(module, datamodule=data)
    order = data._sampler().step(0)
    sampler = GroupSampler(_engine(_loaded(model)), K, 0, ListedRewards())
    groups = sampler.sample([data.train[index] for index in order], data.labels, 0, trainer)
    loss = float(trainer.callback_metrics["train/loss"])
    return loss, dict(backbone.network.state_dict()), groups


def train_trl(
    model: Path, loss_type: str, beta: float, unbiased: bool, groups: Sequence[Group], place: Path
) -> tuple[float, dict[str, Tensor]]:
    """Let TRL make two updates on given outputs; return the mean loss and the weights."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    by_id = {group.prompt.id: group for group in groups}
    losses: list[float] = []

    class Recorded(GRPOTrainer):
        def _compute_loss(self, *arguments: Any) -> Any:
            loss = super()._compute_loss(*arguments)
            losses.append(float(loss.detach()))
            return loss

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        numbers = list(_numbered(prompts))
        return {
            "prompt_ids": [list(by_id[name].prompt.prompt) for name, _ in numbers],
            "completion_ids": [list(by_id[name].outputs[number]) for name, number in numbers],
            "logprobs": None,
        }

    def reward(prompts: list[str], **more: Any) -> list[float]:
        return [by_id[name].rewards[number] for name, number in _numbered(prompts)]

    config = GRPOConfig(
        output_dir=str(place),
        **{"loss_type": loss_type, "beta": beta, "num_generations": K, "num_iterations": 2, "epsilon": CLIP},
        use_bias_correction_kl=unbiased,
        **{"temperature": TEMPERATURE, "max_completion_length": NEW_TOKENS, "max_steps": 2},
        **{"per_device_train_batch_size": PROMPTS * K, "gradient_accumulation_steps": 1, "steps_per_generation": 1},
        **{"optim": "sgd", "learning_rate": LEARNING_RATE, "lr_scheduler_type": "cosine", "max_grad_norm": 0.0},
        **{"bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": "none"},
        **{"save_strategy": "no", "disable_tqdm": True},
    )
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    trainer = Recorded(
        model=network,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": list(by_id)}),
        processing_class=AutoTokenizer.from_pretrained(model),
        rollout_func=rollout,
    )
    trainer.train()
    assert len(losses) == 2, losses
    return sum(losses) / 2, dict(trainer.model.state_dict())


def _numbered(prompts: Sequence[str]) -> list[tuple[str, int]]:
    """Return each prompt with the number of times that it has occurred before."""
    seen = Counter[str]()
    numbered = []
    for prompt in prompts:
        numbered.append((prompt, seen[prompt]))
        seen[prompt] += 1
    return numbered


def _loaded(model: Path) -> Backbone:
    backbone = Backbone(str(model))
    backbone.load()
    backbone.network.generation_config.eos_token_id = list(END_TOKENS)
    return backbone


def _engine(backbone: Backbone) -> LocalGenerator:
    return LocalGenerator(backbone, max_new_tokens=NEW_TOKENS, temperature=TEMPERATURE)


if __name__ == "__main__":
    sys.exit(main())
