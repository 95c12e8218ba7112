"""Model folders: fingerprints, and loading with one-line errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError, unique_keys
from guardreasoner.workflow.manifest import fingerprint

FORMAT_FILE = "guard.json"
"""File beside the weights that holds the prompt format and the fingerprint of an adapter's base model."""

_SAMPLE = 1 << 20  # bytes


def files_fingerprint(path: str) -> str:
    """Return a hash of a model's files (name, size, first and last MiB of each), or of its hub id."""
    folder = Path(path)
    if not folder.is_dir():
        return fingerprint({"hub": path})
    parts: dict[str, Any] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix == ".safetensors" or file.name in {"tokenizer.json", "adapter_config.json", "config.json"}:
            size = file.stat().st_size
            with file.open("rb") as data:
                first = data.read(_SAMPLE)
                data.seek(max(0, size - _SAMPLE))
                parts[file.name] = [size, first.hex(), data.read(_SAMPLE).hex()]
    return fingerprint(parts)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file, None if there is no file; raise ``InputError`` if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys) if path.is_file() else None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def loading(path: str, load: Callable[[], Any]) -> Any:
    """Call ``load`` without progress bars; raise an ``InputError`` that names ``path`` if it fails."""
    from huggingface_hub.utils.logging import set_verbosity_error as quiet_hub
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    quiet_hub()  # it logs every attempt to reach the hub
    try:
        return load()
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip() or "damaged").splitlines()[0]
        raise InputError(f"{path}: cannot be loaded: {type(error).__name__}: {first}") from error


def load_network(path: str, dtype: Any, quantization: str | None = None) -> Any:
    """Load a causal language model.

    Args:
        path: folder or hub id.
        dtype: data type of the weights, or of the computation with quantized weights.
        quantization: "4bit" loads NF4 weights.

    Raises:
        InputError: the model cannot be loaded, weights are missing, or its architecture is not supported.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    _require_no_experts(path, loading(path, lambda: AutoConfig.from_pretrained(path, trust_remote_code=False)))
    quantization_config = None
    if quantization:
        quantization_config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=True,
        )
    network, report = loading(
        path,
        lambda: AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            quantization_config=quantization_config,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        ),
    )
    for layer in network.modules() if quantization else ():
        # On a CPU with AVX512-BF16, bitsandbytes repacks the weights at the first forward pass without gradients for a
        # kernel that has no backward pass; later gradients would silently stop at every such layer.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{path}: {len(missing)} weights are missing and would be random, first {missing[0]}")
    head = network.get_output_embeddings()
    scales = [getattr(network.config, name, None) for name in ("logit_scale", "logits_scaling")]
    if (
        getattr(head, "bias", None) is not None
        or getattr(network.config, "final_logit_softcapping", None)
        or any(scale not in (None, 1) for scale in scales)
    ):
        raise InputError(f"{path}: an output layer with a bias, or capped or scaled logits, is not supported")
    return network


def _require_no_experts(path: str, config: Any) -> None:
    """Refuse mixture-of-experts models: their router needs a load-balancing loss that our objectives do not have."""
    text = config.get_text_config()
    if any(
        (getattr(text, name, None) or 0) > 1
        for name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    ):
        raise InputError(f"{path}: mixture-of-experts models ({text.model_type}) are not supported")
