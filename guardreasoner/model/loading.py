"""Model folders: fingerprints, checks of files and weights, and loading with one-line errors."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from guardreasoner.errors import InputError, unique_keys
from guardreasoner.model.hub_errors import hub_error
from guardreasoner.model.quantization import require_four_bit
from guardreasoner.workflow.guard_file import GUARD_FILE
from guardreasoner.workflow.integrity import require_unchanged
from guardreasoner.workflow.manifest import file_hash, fingerprint

FORMAT_FILE = GUARD_FILE
"""File beside the weights that holds the prompt format and the fingerprint of an adapter's base model."""

GIVE_BASE = (
    "name the base model that it was trained on: --model.backbone.base_path FOLDER (other verbs: --base_path), or "
    "base_model_name_or_path in its adapter_config.json"
)

_NOT_LOADED = (".md", ".pt")  # README.md, and optimizer.pt, which is checked by its reader
LOADING_ERRORS = (
    *(OSError, ValueError, LookupError, TypeError, RuntimeError, ArithmeticError, AssertionError),
    *(AttributeError, ImportError, EOFError, UnpicklingError),
)
"""What transformers and peft raise for files that are damaged, missing, or of another kind than they say.

Numbers of a config are divided by each other, so 0 heads are a ``ZeroDivisionError``.
"""

_NO_TOKENIZER = "instantiate the backend tokenizer"
"""A part of what transformers says of a folder without a tokenizer, over several lines."""

_SAMPLE = 1 << 20  # bytes


def files_fingerprint(path: str, base: str | None = None) -> str:
    """Return a hash of a model's files, with those of an adapter's base model, or of its hub id.

    Args:
        path: folder or hub id.
        base: folder or hub id of an adapter's base model; None: the one that the adapter names.
    """
    folder = Path(path)
    if not folder.is_dir():
        return hub_fingerprint(path)
    parts: dict[str, Any] = {file.name: file_hash(file) for file in _fingerprinted(folder)}
    if adapter := read_json(folder / "adapter_config.json"):
        parts["base"] = files_fingerprint(base_of(path, adapter, base))
    return fingerprint(parts)


def hub_fingerprint(name: str) -> str:
    """Return the fingerprint of a model on the hub, which is one of its name alone."""
    return fingerprint({"hub": name})


def sampled_fingerprint(path: str) -> str:
    """Return the fingerprint that earlier versions stored in adapters: of size, first and last MiB of each file."""
    if not Path(path).is_dir():
        return files_fingerprint(path)
    parts: dict[str, Any] = {}
    for file in _fingerprinted(Path(path)):
        size = file.stat().st_size
        with file.open("rb") as data:
            first = data.read(_SAMPLE)
            data.seek(max(0, size - _SAMPLE))
            parts[file.name] = [size, first.hex(), data.read(_SAMPLE).hex()]
    return fingerprint(parts)


def base_of(path: str, adapter: dict[str, Any], given: str | None = None) -> str:
    """Return the folder or hub id of an adapter's base model.

    Args:
        path: folder of the adapter.
        adapter: content of its ``adapter_config.json``.
        given: the base model that the user names instead; None: none.

    Raises:
        InputError: no base model is named, or it is an adapter itself.
    """
    base = given or adapter.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"{path}: adapter_config.json names no base model (base_model_name_or_path)", GIVE_BASE)
    if (Path(base) / "adapter_config.json").is_file():
        raise InputError(
            f"{path}: its base model {base} is an adapter itself", "merge that adapter into its base model"
        )
    return base


def require_intact(path: str, weights: bool = True) -> None:
    """Require that the files of a model folder are those that its manifest describes; other models are accepted.

    Args:
        path: folder or hub id.
        weights: also check the weights; else only tokenizer, config and prompt format.

    Raises:
        InputError: a file is damaged, edited or missing.
    """
    if Path(path).is_dir():
        require_unchanged(path, _NOT_LOADED if weights else (*_NOT_LOADED, ".safetensors"))


def require_finite(path: str, tensors: Iterable[tuple[str, Any]]) -> None:
    """Require that named weights hold neither NaN nor infinity.

    Args:
        path: folder or hub id of the model, for the message.
        tensors: names and tensors, also 4-bit ones.

    Raises:
        InputError: one of them does.
    """
    if faulty := [name for name, tensor in tensors if not _is_finite(tensor)]:
        raise InputError(f"{path}: {len(faulty)} weights hold NaN or infinite values, first {faulty[0]}")


def embedding_rows(path: str) -> int:
    """Return the number of token ids that a model's config has an embedding for, without loading its weights.

    Args:
        path: folder or hub id of a model that is no adapter.

    Raises:
        InputError: its config cannot be read.
    """
    from transformers import AutoConfig

    config = loading(path, lambda: AutoConfig.from_pretrained(path, trust_remote_code=False))
    rows: int = config.get_text_config().vocab_size
    return rows


def file_of(model: str, name: str) -> Path:
    """Return the path of a file of a model, downloaded if the model is on a hub; the model may lack the file.

    Without a connection, a file that is not in the cache counts as missing.

    Args:
        model: folder or hub id.
        name: name of the file.

    Raises:
        InputError: the hub refuses access, or there is no such model.
    """
    if Path(model).is_dir():
        return Path(model) / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    def download() -> Path:
        try:
            return Path(hf_hub_download(model, name))
        except (EntryNotFoundError, HFValidationError):  # also what is raised without a connection; a missing folder
            return Path(model) / name

    file: Path = loading(model, download)
    return file


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file, None if there is no file; raise ``InputError`` if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys) if path.is_file() else {}
    except RecursionError:
        raise InputError(f"{path}: not valid JSON: too deeply nested") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content if path.is_file() else None


def loading(path: str, load: Callable[[], Any]) -> Any:
    """Call ``load`` without progress bars; raise an ``InputError`` that names ``path`` if it fails."""
    from huggingface_hub.errors import StrictDataclassError
    from huggingface_hub.utils.logging import set_verbosity_error as quiet_hub
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    quiet_hub()  # it logs every attempt to reach the hub
    try:
        return load()
    except (*LOADING_ERRORS, SafetensorError, StrictDataclassError) as error:
        if of_hub := hub_error(path, error):
            raise of_hub from error
        lines = [line.strip() for line in (str(error).strip() or "damaged").splitlines()]
        if _NO_TOKENIZER in lines[0]:
            raise InputError(f"{path}: it has no tokenizer that can be used; expected tokenizer.json") from error
        first = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
        raise InputError(f"{path}: cannot be loaded: {type(error).__name__}: {first}") from error


def load_network(path: str, dtype: Any, quantization: str | None = None) -> Any:
    """Load a causal language model.

    Args:
        path: folder or hub id.
        dtype: data type of the weights, or of the computation with quantized weights.
        quantization: "4bit" loads NF4 weights.

    Raises:
        InputError: the model cannot be loaded, a file is damaged, weights are missing, unknown, of another shape or
            not finite, or its architecture is not supported.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    require_intact(path)
    _require_safetensors(path)
    config = loading(path, lambda: AutoConfig.from_pretrained(path, trust_remote_code=False))
    _require_no_experts(path, config)
    _require_no_hub_code(path, config)
    quantization_config = None
    if quantization:
        require_four_bit()
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
            ignore_mismatched_sizes=True,  # reported below, with the name
        ),
    )
    if quantization:
        _release_files(network)
    for layer in network.modules() if quantization else ():
        # On a CPU with AVX512-BF16, bitsandbytes repacks the weights at the first forward pass without gradients for a
        # kernel that has no backward pass; later gradients would silently stop at every such layer.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    require_complete(path, report, network)
    require_supported(path, network)
    return network


def require_complete(path: str, report: dict[str, Any], network: Any = None) -> None:
    """Require that a loaded model got all weights that its architecture has, and no others.

    Args:
        path: folder, file or hub id of the model, for the message.
        report: loading report of transformers.
        network: a network whose weights may be quantized; None if they are not.

    Raises:
        InputError: weights are missing, unknown, or of another shape.
    """
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{path}: {len(missing)} weights are missing and would be random, first {missing[0]}")
    if unknown := sorted(report["unexpected_keys"]):
        raise InputError(f"{path}: {len(unknown)} weights are not part of the architecture, first {unknown[0]}")
    mismatched = [name for name, *_ in report["mismatched_keys"]]
    # a quantized weight is a row of bytes; its shape is not compared with the layer's
    mismatched += [
        f"{name}.weight"
        for name, layer in (network.named_modules() if network is not None else ())
        if (state := getattr(getattr(layer, "weight", None), "quant_state", None)) is not None
        and tuple(state.shape) != (layer.out_features, layer.in_features)
    ]
    if mismatched:
        raise InputError(
            f"{path}: {len(mismatched)} weights have other shapes than the config says, first {mismatched[0]}"
        )


def require_supported(path: str, network: Any) -> None:
    """Require that a network is of a kind that we can train, with finite weights.

    Args:
        path: folder, file or hub id of the model, for the message.
        network: the network.

    Raises:
        InputError: weights are not finite, it is a mixture of experts, or its logits are not plain.
    """
    _require_no_experts(path, network.config)
    require_finite(path, network.named_parameters())
    loading(path, lambda: _require_plain_logits(path, network))


def _release_files(network: Any) -> None:
    """Copy what a quantized network has from its files as it is: embedding, norms and output layer.

    On a CPU, a tensor of the file's data type is a view of the mapped file. One such view keeps the whole file mapped,
    with all the weights that were read to be quantized.
    """
    for parameter in network.parameters():
        if parameter.device.type == "cpu" and getattr(parameter, "quant_state", None) is None:
            parameter.data = parameter.data.clone()


def _require_safetensors(path: str) -> None:
    """Require that the index of a model folder names safetensors inside it: transformers would unpickle other files."""
    index = Path(path, "model.safetensors.index.json")
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if content is not None and not isinstance(shards, dict):
        raise InputError(f"{index}: weight_map: expected a mapping of weights to files")
    for shard in (shards or {}).values():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise InputError(f"{index}: expected names of safetensors files in this folder, found {shard!r}")


def _require_no_hub_code(path: str, config: Any) -> None:
    """Refuse an attention that is a repository: transformers would download its code and run it."""
    for part in (config, config.get_text_config()):
        attention = getattr(part, "_attn_implementation", None)
        if attention is not None and "/" in str(attention):
            raise InputError(f"{path}: config.json: attention {attention!r}: code from a hub is never run")


def _require_no_experts(path: str, config: Any) -> None:
    """Refuse mixture-of-experts models: their router needs a load-balancing loss that our objectives do not have."""
    text = config.get_text_config()
    if any(
        (getattr(text, name, None) or 0) > 1
        for name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    ):
        raise InputError(f"{path}: mixture-of-experts models ({text.model_type}) are not supported")


def _require_plain_logits(path: str, network: Any) -> None:
    """Require that the logits are the output layer's weight times the last hidden states, which is how we compute them.

    Some families add a bias or cap or scale the logits. To find out, the network's own forward pass is run with a
    decoder that returns large random hidden states; if the network does not call it, with its real hidden states.
    """
    import torch

    head = network.get_output_embeddings()
    ids = torch.zeros(1, 2, dtype=torch.int64, device=head.weight.device)
    random = torch.Generator().manual_seed(0)  # the global state stays as it is
    # Lightning loads models with the GPU as default device, and the generator is on the CPU.
    hidden = 1000 * torch.randn(1, 2, head.weight.shape[1], generator=random, device="cpu").to(head.weight)
    with torch.no_grad():
        with _replaced_forward(network.base_model, _DecoderOutput(last_hidden_state=hidden)) as calls:
            logits = network(input_ids=ids).logits
        expected = (hidden if calls else network.base_model(input_ids=ids).last_hidden_state) @ head.weight.T
    is_plain = torch.allclose(logits.float(), expected.float(), rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
    if getattr(head, "bias", None) is not None or not is_plain:
        raise InputError(f"{path}: an output layer with a bias, or capped or scaled logits, is not supported")


class _DecoderOutput(dict[str, Any]):
    """Output of a decoder, by name or index; what it does not hold is None."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    def __getitem__(self, key: Any) -> Any:
        return [*self.values()][key] if isinstance(key, int | slice) else super().__getitem__(key)


@contextmanager
def _replaced_forward(module: Any, output: Any) -> Iterator[list[None]]:
    """Make a module return a fixed output; yield a list that grows with every call."""
    calls: list[None] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return output

    own = module.__dict__.get("forward")  # set by libraries that place the weights on devices
    module.forward = forward
    try:
        yield calls
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _is_finite(tensor: Any) -> bool:
    import torch

    state = getattr(tensor, "quant_state", None)  # of bitsandbytes; NaN in a weight makes its scales NaN
    if state is not None:
        tensor = state.offset if state.nested else state.absmax
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor.detach()))).all())


def _fingerprinted(folder: Path) -> Iterator[Path]:
    """Yield weights, tokenizer and configs of a model folder by name."""
    names = {"tokenizer.json", "adapter_config.json", "config.json"}
    return (file for file in sorted(folder.iterdir()) if file.suffix == ".safetensors" or file.name in names)
