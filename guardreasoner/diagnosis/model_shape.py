"""The shape of the model that a run trains, from files that are here or from published values; reads no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.model.loading import GIVE_BASE, base_of, loading, read_json
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
        f"recipe.base: {base}: no such model here, and its shape is not among the published ones",
        f"pass a folder with its config.json (no weights are needed) or a hub id such as {next(iter(PUBLISHED))}",
    )


def _shape_at(place: str, before: str, adapter_base: str | None) -> ModelShape | None:
    """Return the shape of the model at a place; None if there is none."""
    adapter = read_json(Path(place) / "adapter_config.json")
    base = place if adapter is None else base_of(place, adapter, adapter_base)
    if (found := _base_shape(base, bool(before))) is None:
        if adapter is not None:
            raise InputError(f"{place}: its base model {base} is not here, and its shape is unknown", GIVE_BASE)
        return None
    config, source, is_here = found
    lora = None if adapter is None else _stored_lora(place, adapter, config.num_hidden_layers)
    return ModelShape(config, before + source, lora, place if is_here else None)


def _base_shape(path: str, is_second: bool) -> tuple[Any, str, bool] | None:
    """Return the config of a model that holds all weights, where it comes from, and whether its files are here."""
    if Path(path, "config.json").is_file():
        return _config(path), f"config.json of {path}", True
    if Path(path).is_dir() or Path(path).is_absolute() or len(Path(path).parts) != 2:
        return None
    try:
        return _config(path), f"{path} in the hub's cache", True
    except InputError:
        if path not in PUBLISHED:
            return None
    from transformers import LlamaConfig

    source = f"published shape of {path}" + (", which is not here either" if is_second else "")
    return LlamaConfig(**PUBLISHED[path]), source, False


_NOT_PLANNED = ("rank_pattern", "alpha_pattern", "layers_pattern", "modules_to_save", "layer_replication")


def _stored_lora(folder: str, adapter: dict[str, Any], layers: int) -> LoRA:
    """Return the options of a stored adapter.

    Args:
        folder: folder of the adapter.
        adapter: content of its ``adapter_config.json``.
        layers: number of layers of the base model.

    Raises:
        InputError: the adapter is no LoRA, has settings that the plan does not know, or a setting is invalid.
    """
    where = f"{folder}: adapter_config.json"
    if adapter.get("peft_type") != "LORA":
        raise InputError(f"{where}: peft_type: expected LORA, got {adapter.get('peft_type')!r}")
    for name in _NOT_PLANNED:
        if adapter.get(name):
            raise InputError(f"{where}: {name}: the plan does not know adapters with this setting")
    rank = adapter.get("r")
    if not isinstance(rank, int) or rank < 1:
        raise InputError(f"{where}: r: expected a whole number of at least 1, got {rank!r}")
    targets, chosen = adapter.get("target_modules"), adapter.get("layers_to_transform")
    if not isinstance(targets, str | list):
        raise InputError(f"{where}: target_modules: expected one or several names, got {targets!r}")
    upper = None if chosen is None else len(chosen) if isinstance(chosen, list) else 1
    if upper is not None and chosen not in (list(range(layers - upper, layers)), layers - upper):
        raise InputError(f"{where}: layers_to_transform: the plan only knows adapters on all or on the upper layers")
    return LoRA(rank, target_modules=targets, upper_layers=upper)


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
