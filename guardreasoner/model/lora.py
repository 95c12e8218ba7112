"""Low-rank adapters: put on a network, read from and written to a model folder, always with the base they belong to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.model.loading import FORMAT_FILE, files_fingerprint, read_json


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021).

    Args:
        r: rank.
        alpha: scale; the update is multiplied by alpha / r.
        dropout: on the adapter's input, in R-SFT only.
        target_modules: names of layers, or "all-linear".
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.05
    target_modules: str | list[str] = "all-linear"


def prepared(network: Any, quantized: bool) -> Any:
    """Return a network that is ready to carry an adapter."""
    if not quantized:
        return network
    from peft import prepare_model_for_kbit_training

    return prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)


def add_adapter(network: Any, lora: LoRA) -> Any:
    """Return a network with a new adapter, which changes nothing yet.

    Raises:
        InputError: the output layer would get one.
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
        raise InputError("model.backbone.lora.target_modules: the output layer (lm_head) cannot have an adapter")
    return adapted


def attach_adapter(network: Any, path: str, config: dict[str, Any], lora: LoRA | None) -> Any:
    """Return the base network with the adapter of a model folder, trainable.

    Args:
        network: the base.
        path: the folder.
        config: what its ``adapter_config.json`` says.
        lora: the adapter that the run asks for, if it does.

    Raises:
        InputError: another adapter is asked for, another base model is there, or weights are missing.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    require_same_adapter(path, config, lora)
    adapted = PeftModel.from_pretrained(network, path, is_trainable=True)
    with safe_open(Path(path) / "adapter_model.safetensors", "pt") as file:
        missing = sorted(get_peft_model_state_dict(adapted).keys() - set(file.keys()))
    if missing:
        raise InputError(f"{path}: {len(missing)} weights are missing, {missing[0]} first")
    return adapted


def require_same_adapter(path: str, config: dict[str, Any], lora: LoRA | None) -> None:
    """Refuse an adapter that is not the one that is asked for, or whose base model has changed.

    Args:
        path: its folder.
        config: what its ``adapter_config.json`` says.
        lora: the adapter that the run asks for, if it does.

    Raises:
        InputError: another adapter is asked for, or another base model is there.
    """
    if lora is not None and (lora.r, lora.alpha) != (config["r"], config["lora_alpha"]):
        raise InputError(
            f"{path}: its adapter has r {config['r']} and alpha {config['lora_alpha']}, "
            f"the config says r {lora.r} and alpha {lora.alpha}"
        )
    base = (read_json(Path(path) / FORMAT_FILE) or {}).get("base")
    if base is not None and base != files_fingerprint(config["base_model_name_or_path"]):
        raise InputError(
            f"{path}: its adapter was trained on another base model than {config['base_model_name_or_path']} now holds"
        )


def write_base(folder: Path) -> None:
    """Write into a saved adapter's config where its base is, so that it survives a change of working folder."""
    config = read_json(folder / "adapter_config.json") or {}
    base = Path(config["base_model_name_or_path"])
    config["base_model_name_or_path"] = str(base.resolve()) if base.is_dir() else str(base)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def base_fingerprint(network: Any) -> str:
    """Return the fingerprint of the files of an adapted network's base."""
    return files_fingerprint(network.peft_config["default"].base_model_name_or_path)
