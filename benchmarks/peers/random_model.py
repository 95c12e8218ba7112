"""Llamas of a given shape with random weights, beside the tokenizer of the embedded corpus."""

import contextlib
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXTS = 200
"""Records that the tokenizer is trained on."""


def make_tokenizer(folder: Path) -> None:
    """Write a model folder whose tokenizer has 1,600 tokens; its tiny network is not used."""
    from guardreasoner.cli.commands.base_model import make_base_model
    from guardreasoner.sources.embedded import Embedded

    shape = {"hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 1, "kv_heads": 1, "max_length": 4096}
    records = list(Embedded().records("train"))[:TEXTS]
    with contextlib.redirect_stdout(io.StringIO()):
        make_base_model(str(folder), records, vocabulary=1600, opening="", **shape)


def make_llama(
    folder: Path, tokenizer_folder: Path, shape: Mapping[str, Any], dtype: str = "float32", device: str = "cpu"
) -> None:
    """Write a Llama with random weights beside a copy of a tokenizer.

    Args:
        folder: Model folder to write; replaced if an earlier run left it unfinished.
        tokenizer_folder: Model folder with the tokenizer.
        shape: Arguments of ``LlamaConfig``.
        dtype: Data type of the weights.
        device: Where the weights are made.
    """
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    ignored = shutil.ignore_patterns("*.safetensors", "config.json", "manifest*")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tokenizer_folder, folder, ignore=ignored)
    torch.manual_seed(0)
    with torch.device(device):
        config = LlamaConfig(eos_token_id=2, **shape)
        network = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    network.save_pretrained(folder)
