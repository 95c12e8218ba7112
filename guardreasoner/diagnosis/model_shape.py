"""The shape of the model that a run trains, from files that are here or from published values; reads no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.model.loading import base_of, loading, read_json
from guardreasoner.model.lora import LoRA
from guardreasoner.workflow.config import config_files, resolve
from guardreasoner.workflow.staleness import full

_LLAMA = {"vocab_size": 128_256, "num_key_value_heads": 8, "max_position_embeddings": 131_072}
_1B = {**_LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
_3B = {**_LLAMA, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24}
_8B = {**_LLAMA, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32}
_SMOLLM2 = {
    **{"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30},
    **{"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192},
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.2-1B": {**_1B, "tie_word_embeddings": True},
    "meta-llama/Llama-3.2-1B-Instruct": {**_1B, "tie_word_embeddings": True},
    "meta-llama/Llama-3.2-3B": {**_3B, "tie_word_embeddings": True},
    "meta-llama/Llama-3.2-3B-Instruct": {**_3B, "tie_word_embeddings": True},
    "meta-llama/Llama-3.1-8B": {**_8B, "tie_word_embeddings": False},
    "meta-llama/Llama-3.1-8B-Instruct": {**_8B, "tie_word_embeddings": False},
    "HuggingFaceTB/SmolLM2-135M": {**_SMOLLM2, "tie_word_embeddings": True},
    "HuggingFaceTB/SmolLM2-135M-Instruct": {**_SMOLLM2, "tie_word_embeddings": True},
}
"""Shapes of the Llamas that the overlays in ``configs/model`` name, from ``config.json`` of each on huggingface.co."""

_BASE = "configs/base.yaml"


@dataclass(frozen=True)
class ModelShape:
    """Shape of a model.

    Args:
        config: transformers' configuration of the base model.
        source: where it comes from, for the reader.
        adapter: the adapter of the model folder; None if it has none.
        folder: folder or hub id that has the tokenizer; None if none is here.
    """

    config: Any
    source: str
    adapter: LoRA | None
    folder: str | None


def find_shape(path: str, base: str, argv: Sequence[str], adapter_base: str | None = None) -> ModelShape:
    """Return the shape of a model.

    It is that of the model folder; if that is not made yet, that of the model that training starts from: a folder, the
    hub's cache, a published shape, or the embedded base model's config.

    Args:
        path: folder or hub id of the model.
        base: folder or hub id of the model that training starts from (``recipe.base``).
        argv: verb and flags of the fit.
        adapter_base: folder or hub id of the base model of an adapter; None: the one that it names.

    Raises:
        InputError: the shape is unknown, or a file is damaged.
    """
    for place in dict.fromkeys((path, base)):
        if shape := _shape_at(place, "" if place == path else f"{path} is not here; ", adapter_base):
            return shape
    overlays = [word for file in config_files(argv)[1:] for word in ("--config", file)]
    stage = resolve(["base-model", "--config", _BASE, *overlays])
    if stage.output is not None and full(stage.output) == full(base):
        return ModelShape(
            loading(_BASE, lambda: _embedded(stage.config)), f"{base} is not built; shape of {_BASE}", None, None
        )
    raise InputError(
        f"model.backbone.path: {path}: the shape of this model is unknown here",
        "pass a folder with its config.json: --model.backbone.path FOLDER; no weights are needed",
    )


def _shape_at(place: str, before: str, adapter_base: str | None) -> ModelShape | None:
    adapter, lora, shown = read_json(Path(place) / "adapter_config.json"), None, place
    if adapter is not None:
        lora = LoRA(adapter["r"], adapter["lora_alpha"], target_modules=adapter["target_modules"])
        shown = base_of(place, adapter, adapter_base)
    if Path(shown, "config.json").is_file():
        return ModelShape(_config(shown), f"{before}config.json of {shown}", lora, place)
    if Path(shown).is_dir() or Path(shown).is_absolute() or len(Path(shown).parts) != 2:
        return None
    try:
        return ModelShape(_config(shown), f"{before}{shown} in the hub's cache", lora, place)
    except InputError:
        if shown not in PUBLISHED:
            return None
    from transformers import LlamaConfig

    source = (
        f"{before}published shape of {shown}, which is not here either" if before else f"published shape of {shown}"
    )
    return ModelShape(LlamaConfig(**PUBLISHED[shown]), source, lora, None)


def _config(path: str) -> Any:
    from transformers import AutoConfig

    found = loading(path, lambda: AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True))
    return found.get_text_config()


def _embedded(stage: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=stage["vocabulary"],
        hidden_size=stage["hidden_size"],
        intermediate_size=stage["intermediate_size"],
        num_hidden_layers=stage["layers"],
        num_attention_heads=stage["heads"],
        num_key_value_heads=stage["kv_heads"],
        max_position_embeddings=stage["max_length"],
        tie_word_embeddings=True,
    )
