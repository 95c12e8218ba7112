"""Tiny models with the control tokens of other guards, as hubs hold them: without a format of ours."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

LLAMA_GUARD_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
QWEN_TOKENS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
PLAIN_TAGS = ("<think>", "</think>")
"""Added tokens that are not special, as in Qwen's tokenizers."""


def make_guard_model(base: Path, folder: Path, tokens: Sequence[str], end: str) -> Path:
    """Make a copy of a tiny model that knows more control tokens.

    Args:
        base: model folder.
        folder: folder to write.
        tokens: spellings of the tokens.
        end: the one that ends an output.
    """
    shutil.copytree(base, folder)
    (folder / "guard.json").unlink()
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([token for token in tokens if token in PLAIN_TAGS])
    tokenizer.add_tokens([token for token in tokens if token not in PLAIN_TAGS], special_tokens=True)
    tokenizer.eos_token = end
    network = AutoModelForCausalLM.from_pretrained(base)
    network.resize_token_embeddings(len(tokenizer))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
