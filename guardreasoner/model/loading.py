"""A model folder: its weights, what lies beside them, and how a folder is told from another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.workflow.manifest import fingerprint

FORMAT_FILE = "guard.json"
"""Beside the weights: how the model is asked, and what an adapter was trained on."""

_SAMPLE = 1 << 20


def files_fingerprint(path: str) -> str:
    """Return a hash of a model's files: name, size, first and last MiB of each; of its name where it is on a hub."""
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
    """Return what a JSON file holds, None where there is no file; raise ``InputError`` when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def loading(path: str, load: Callable[[], Any]) -> Any:
    """Call what loads from ``path``, without its progress bars; raise ``InputError`` when it cannot be loaded."""
    from huggingface_hub.utils.logging import set_verbosity_error as quiet_hub
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    quiet_hub()  # it writes a line for every attempt to reach the hub
    try:
        return load()
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip() or "damaged").splitlines()[0]
        raise InputError(f"{path}: cannot be loaded: {type(error).__name__}: {first}") from error


def load_network(path: str, dtype: Any, quantization: str | None = None) -> Any:
    """Load a causal language model.

    Args:
        path: a folder or hub id.
        dtype: of the weights (of what is computed from them, where they are quantized).
        quantization: "4bit": as NF4.

    Raises:
        InputError: it cannot be loaded, weights are missing, or its output layer is of a kind that is not supported.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = None
    if quantization:
        config = BitsAndBytesConfig(
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
            quantization_config=config,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        ),
    )
    for layer in network.modules() if quantization else ():
        # On a CPU with AVX512-BF16, bitsandbytes packs the weights at the first forward pass without a gradient,
        # for a kernel that has no backward: later gradients would stop at every such layer, without a word.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{path}: {len(missing)} weights are missing, {missing[0]} first; they would be random")
    head = network.get_output_embeddings()
    scales = [getattr(network.config, name, None) for name in ("logit_scale", "logits_scaling")]
    if (
        getattr(head, "bias", None) is not None
        or getattr(network.config, "final_logit_softcapping", None)
        or any(scale not in (None, 1) for scale in scales)
    ):
        raise InputError(f"{path}: an output layer with a bias, or capped or scaled logits, is not supported")
    return network
