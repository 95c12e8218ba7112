"""Low-rank adapters (LoRA): add to a network, load, and save with a reference to their base model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.model.loading import FORMAT_FILE, files_fingerprint, read_json
from guardreasoner.workflow.ranges import Count, ShareBelowOne


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021).

    Args:
        r: rank.
        alpha: scale; the update is multiplied by alpha / r.
        dropout: dropout of the adapter's input; only R-SFT uses it.
        target_modules: names of the layers to adapt, or "all-linear".
    """

    r: Count = 16
    alpha: Count = 32
    dropout: ShareBelowOne = 0.05
    target_modules: str | list[str] = "all-linear"


def prepared(network: Any, quantized: bool) -> Any:
    """Return a network that is ready for an adapter."""
    if not quantized:
        return network
    from peft import prepare_model_for_kbit_training

    return prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)


def add_adapter(network: Any, lora: LoRA) -> Any:
    """Return a network with a new adapter, which does not change the output yet.

    Raises:
        InputError: ``target_modules`` includes the output layer.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(network, config)
    if hasattr(adapted.get_output_embeddings(), "lora_A"):
        raise InputError("model.backbone.lora.target_modules: an adapter on the output layer is not supported")
    return adapted


def attach_adapter(network: Any, path: str, config: dict[str, Any], lora: LoRA | None) -> Any:
    """Return the base network with the trainable adapter of a model folder.

    Args:
        network: base model.
        path: folder of the adapter.
        config: content of its ``adapter_config.json``.
        lora: adapter options of the run, None if it sets none.

    Raises:
        InputError: the adapter differs from ``lora``, its base model has changed, or weights are missing.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    require_same_adapter(path, config, lora)
    adapted = PeftModel.from_pretrained(network, path, is_trainable=True)
    with safe_open(Path(path) / "adapter_model.safetensors", "pt") as file:
        missing = sorted(get_peft_model_state_dict(adapted).keys() - set(file.keys()))
    if missing:
        raise InputError(f"{path}: {len(missing)} weights are missing, first {missing[0]}")
    return adapted


def require_same_adapter(path: str, config: dict[str, Any], lora: LoRA | None) -> None:
    """Require that an adapter matches the options of the run and that its base model is unchanged.

    Args:
        path: folder of the adapter.
        config: content of its ``adapter_config.json``.
        lora: adapter options of the run, None if it sets none.

    Raises:
        InputError: the rank or scale differs, or the base model has changed.
    """
    if lora is not None and (lora.r, lora.alpha) != (config["r"], config["lora_alpha"]):
        raise InputError(
            f"{path}: the adapter has r {config['r']} and alpha {config['lora_alpha']}, "
            f"but model.backbone.lora sets r {lora.r} and alpha {lora.alpha}"
        )
    base = (read_json(Path(path) / FORMAT_FILE) or {}).get("base")
    if base is not None and base != files_fingerprint(config["base_model_name_or_path"]):
        raise InputError(
            f"{path}: the base model {config['base_model_name_or_path']} has changed since this adapter was trained"
        )


def write_base(folder: Path) -> None:
    """Write the absolute path of the base model into a saved adapter's config, so that it loads from any folder."""
    config = read_json(folder / "adapter_config.json") or {}
    base = Path(config["base_model_name_or_path"])
    config["base_model_name_or_path"] = str(base.resolve()) if base.is_dir() else str(base)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def base_fingerprint(network: Any) -> str:
    """Return the fingerprint of the base model of an adapted network."""
    return files_fingerprint(network.peft_config["default"].base_model_name_or_path)
