"""Small models of every decoder family that packed rows are tested for."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from guardreasoner.model.backbone import Backbone
from tests.support.tiny import enliven

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "qwen2": lambda: Qwen2Config(**SHAPE),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=8),
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=None),
    "mistral-window": lambda: MistralConfig(**SHAPE, sliding_window=12),
    "gemma": lambda: GemmaConfig(**SHAPE, head_dim=8),
    "phi3": lambda: Phi3Config(**SHAPE, pad_token_id=0),
    "phi3-window": lambda: Phi3Config(**SHAPE, pad_token_id=0, sliding_window=12),
}
TINY_SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes the model folder of an architecture on first use."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = Path(shutil.copytree(tiny_base, tmp_path_factory.mktemp("models") / name))
            torch.manual_seed(0)
            config = ARCHITECTURES[name]()
            config.initializer_range = 0.3  # far from uniform, so that a wrong mask shows
            AutoModelForCausalLM.from_config(config).save_pretrained(made[name])
        return made[name]

    return folder


def double(backbone: Backbone) -> Backbone:
    """Make a backbone compute in float64, including its norms, which transformers always computes in float32."""

    def forward(norm: Any, x: Tensor) -> Tensor:
        weight = norm.weight + 1 if type(norm).__name__.startswith("Gemma") else norm.weight
        eps = getattr(norm, "variance_epsilon", None) or norm.eps
        return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)

    for module in backbone.double().modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = MethodType(forward, module)
    return backbone


def make_model_folder(name: str, tokenizer_of: Path, folder: Path, **changes: Any) -> Path:
    """Make a model folder of an architecture, such as "Llama", with the tokenizer of another folder."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    config = getattr(transformers, f"{name}Config")(**(TINY_SHAPE | {"vocab_size": len(tokenizer)} | changes))
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config)
    enliven(network)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, config: type[PeftConfig] = LoraConfig, **options: Any) -> Path:
    """Make an adapter with random weights as peft writes it, with the tokenizer of its base model."""
    torch.manual_seed(1)
    network = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(network, config(**({"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]} | options)))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder
