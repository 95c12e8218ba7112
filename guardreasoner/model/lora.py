"""Low-rank adapters (LoRA): add to a network, load, and save with a reference to their base model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.model.adapter_folder import (
    ADAPTER_WEIGHTS,
    no_weights_in,
    other_base,
    require_fitting,
    require_unchanged_base,
)
from guardreasoner.model.loading import (
    FORMAT_FILE,
    base_of,
    files_fingerprint,
    hub_fingerprint,
    loading,
    read_json,
    require_finite,
    require_intact,
    sampled_fingerprint,
)
from guardreasoner.model.log_probs import OutputLayer
from guardreasoner.workflow.ranges import Count, ShareBelowOne


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021).

    Args:
        r: rank.
        alpha: scale; the update is multiplied by alpha / r.
        dropout: dropout of the adapter's input; only R-SFT uses it.
        target_modules: names of the layers to adapt, or "all-linear".
        upper_layers: number of decoder layers to adapt, counted from the output; None: all. The layers below have no
            backward pass and store no activations, which saves time and memory.
    """

    r: Count = 16
    alpha: Count = 32
    dropout: ShareBelowOne = 0.05
    target_modules: str | list[str] = "all-linear"
    upper_layers: Count | None = None


def prepared(network: Any, quantized: bool) -> Any:
    """Return a network that is ready for an adapter."""
    if not quantized:
        return network
    from peft import prepare_model_for_kbit_training

    return prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)


def add_adapter(network: Any, lora: LoRA) -> Any:
    """Return a network with a new adapter, which does not change the output yet.

    Raises:
        InputError: ``target_modules`` names no layer or includes the output layer, the network has fewer layers than
            ``upper_layers``, or another option is out of range.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules if lora.upper_layers is None else _module_names(network, lora),
        layers_to_transform=None if lora.upper_layers is None else _upper_layers(network, lora.upper_layers),
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(network, config)
    except ValueError as error:
        raise InputError(f"model.backbone.lora: {str(error).splitlines()[0]}") from None
    _require_no_adapter_on_output(adapted, "model.backbone.lora.target_modules", None)
    _fuse(adapted)
    return adapted


def attach_adapter(network: Any, path: str, config: dict[str, Any], lora: LoRA | None, base: str | None = None) -> Any:
    """Return the base network with the trainable adapter of a model folder.

    If the adapter has an embedding and an output layer of its own with another number of rows, because its tool added
    tokens, those of the network must have been resized before (:func:`embedding_rows_of`).

    Args:
        network: base model.
        path: folder of the adapter.
        config: content of its ``adapter_config.json``.
        lora: adapter options of the run, None if it sets none.
        base: folder or hub id of the base model; None: the one that the adapter names.

    Raises:
        InputError: the adapter is damaged, differs from ``lora``, does not fit its base model or the base model has
            changed, weights are missing or not finite, or it changes the output layer.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    require_intact(path)
    require_same_adapter(path, config, lora, base)
    base = base_of(path, config, base)
    saved = loading(path, lambda: load_file(Path(path) / ADAPTER_WEIGHTS))
    require_finite(path, saved.items())
    require_fitting(path, base, config, saved, network)
    base_weights = {f"base_model.model.{name}" for name in network.state_dict()}
    adapted = loading(path, lambda: PeftModel.from_pretrained(network, path, is_trainable=True))
    # what is saved later names this base model, wherever the adapter says that its own is
    adapted.peft_config["default"].base_model_name_or_path = base
    expected = get_peft_model_state_dict(adapted).keys()
    if missing := sorted(expected - saved.keys()):
        raise other_base(path, base, f"{len(missing)} weights are missing, first {missing[0]}")
    if unknown := sorted(saved.keys() - expected - base_weights):
        raise other_base(path, base, f"it has no place for {len(unknown)} weights, first {unknown[0]}")
    hint = "merge it into its base model (peft: merge_and_unload) and use the merged model"
    _require_no_adapter_on_output(adapted, path, hint)
    _fuse(adapted)
    return adapted


def require_plain_lora(path: str, config: Any) -> None:
    """Require that an adapter is LoRA in safetensors, without settings that import code or copy layers.

    Args:
        path: folder of the adapter.
        config: content of its ``adapter_config.json``, which may come from another tool.

    Raises:
        InputError: it is not.
    """
    where = f"{path}: adapter_config.json"
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise InputError(
            f"{where}: peft_type: expected LORA, got {kind!r}",
            "merge it into its base model in the tool that made it, if it can be merged, and use the merged folder",
        )
    if not isinstance(config.get("base_model_name_or_path"), str | None):
        raise InputError(f"{where}: base_model_name_or_path: expected the path or hub id of the base model")
    # With megatron_config, peft imports the module that megatron_core names.
    for name in ("megatron_config", "layer_replication"):
        if config.get(name):
            raise InputError(f"{where}: {name}: not supported")
    require_unchanged_base(path, config)
    if not Path(path, ADAPTER_WEIGHTS).is_file():
        raise no_weights_in(path)


def require_same_adapter(path: str, config: dict[str, Any], lora: LoRA | None, base: str | None = None) -> None:
    """Require that an adapter matches the options of the run and that its base model is unchanged.

    Args:
        path: folder of the adapter.
        config: content of its ``adapter_config.json``.
        lora: adapter options of the run, None if it sets none.
        base: folder or hub id of the base model; None: the one that the adapter names.

    Raises:
        InputError: it acts on some tokens only, the rank, scale or number of layers differs, or the base model has
            changed.
    """
    if config.get("alora_invocation_tokens"):
        raise InputError(f"{path}: an adapter that only acts after certain tokens (aLoRA) is not supported")
    if lora is not None and (lora.r, lora.alpha) != (config["r"], config["lora_alpha"]):
        raise InputError(
            f"{path}: the adapter has r {config['r']} and alpha {config['lora_alpha']}, "
            f"but model.backbone.lora sets r {lora.r} and alpha {lora.alpha}"
        )
    if lora is not None and lora.upper_layers is not None:
        adapted = config.get("layers_to_transform")
        if not isinstance(adapted, list) or len(adapted) != lora.upper_layers:
            raise InputError(
                f"{path}: the adapter has {len(adapted) if isinstance(adapted, list) else 'no selected'} layers, "
                f"but model.backbone.lora sets upper_layers {lora.upper_layers}"
            )
    used, trained_on = base_of(path, config, base), (read_json(Path(path) / FORMAT_FILE) or {}).get("base")
    if trained_on is None or trained_on in (files_fingerprint(used), sampled_fingerprint(used)):
        return
    named = config.get("base_model_name_or_path")
    if base and isinstance(named, str) and trained_on == hub_fingerprint(named):
        return  # trained on a model of the hub, whose files are unknown: its shapes and vocabulary are compared
    if base:
        raise InputError(
            f"{path}: model.backbone.base_path {base} is not the base model that this adapter was trained on"
        )
    raise InputError(f"{path}: the base model {used} has changed since this adapter was trained")


def write_base(folder: Path, base: str | None = None) -> None:
    """Write the absolute path of the base model into a saved adapter's config, so that it loads from any folder.

    ``base`` replaces the base model that the config names.

    peft holds the names of the adapted layers in a set, whose order changes from process to process; they are sorted,
    so that equal adapters have equal files.
    """
    config = read_json(folder / "adapter_config.json") or {}
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    place = Path(base or config["base_model_name_or_path"])
    config["base_model_name_or_path"] = str(place.resolve()) if place.is_dir() else str(place)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def base_fingerprint(network: Any) -> str:
    """Return the fingerprint of the base model of an adapted network."""
    return files_fingerprint(network.peft_config["default"].base_model_name_or_path)


def _fuse(adapted: Any) -> None:
    from guardreasoner.model.lora_layer import fuse_lora_layers  # imports peft

    fuse_lora_layers(adapted)


def _module_names(network: Any, lora: LoRA) -> list[str]:
    """Return the last names of the modules to adapt: peft chooses layers by number only among listed modules."""
    from torch import nn

    if lora.target_modules != "all-linear":
        return [lora.target_modules] if isinstance(lora.target_modules, str) else lora.target_modules
    head = network.get_output_embeddings()
    linear = (name for name, module in network.named_modules() if isinstance(module, nn.Linear) and module is not head)
    return sorted({name.rpartition(".")[2] for name in linear})


def _upper_layers(network: Any, count: int) -> list[int]:
    """Return the indices of the last ``count`` decoder layers."""
    layers: int = network.config.get_text_config().num_hidden_layers
    if count > layers:
        raise InputError(f"model.backbone.lora.upper_layers: {count}, but the model has {layers} layers")
    return list(range(layers - count, layers))


def _require_no_adapter_on_output(adapted: Any, where: str, hint: str | None) -> None:
    """Refuse adapters on the output layer: its weight is used without the layer's forward pass (``token_logps``).

    A trained copy of the whole layer (``modules_to_save``) is an output layer itself and is allowed.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = dict(adapted.named_modules())
    outputs = [name for name, module in modules.items() if isinstance(module, OutputLayer)]
    for name, module in modules.items():
        if isinstance(module, BaseTunerLayer) and any(output.startswith(f"{name}.") for output in outputs):
            short = name.removeprefix("base_model.model.")
            raise InputError(f"{where}: an adapter on the output layer ({short}) is not supported", hint)
