"""Export a guard: its adapter alone, a merged model folder, or a folder that other tools can serve."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from guardreasoner.errors import InputError
from guardreasoner.model.loading import GIVE_BASE, base_of, load_network, read_json, require_intact
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.workflow.guard_file import GUARD_FILE
from guardreasoner.workflow.manifest import MANIFEST, Manifest

Dtype = Literal["float32", "bfloat16", "float16"]

CARD = "README.md"
"""Name of the model card in a folder."""

MAX_NEW_TOKENS = 2048
"""Longest answer that an exported folder asks for by default; servers would otherwise stop after a few tokens."""

_COPIED = (".json", ".safetensors", ".jinja", ".model", ".txt")
"""Endings of the files of an adapter and its tokenizer; others, such as the optimizer's state, are not needed."""


@dataclass(frozen=True)
class ExportSource:
    """A model folder to export.

    Args:
        path: the folder.
        adapter: content of its ``adapter_config.json``; None if it holds all weights.
        quantization: "4bit" if the base model was quantized while the adapter was trained.
        dtype: data type that the model was trained in.
        base_path: folder or hub id of the base model, if the adapter names another place.
    """

    path: str
    adapter: dict[str, Any] | None
    quantization: Literal["4bit"] | None
    dtype: Dtype
    base_path: str | None = None

    @property
    def base(self) -> str:
        """Folder or hub id of the base model; the model's own folder if it holds all weights."""
        return base_of(self.path, self.adapter, self.base_path) if self.adapter else self.path


def export_source(
    path: str, quantization: Literal["4bit", "none"] | None = None, base_path: str | None = None
) -> ExportSource:
    """Return a model folder with what its manifest says about its training.

    Args:
        path: the folder.
        quantization: quantization of the base model during training; None: what the manifest says.
        base_path: folder or hub id of the base model of an adapter that names another place.

    Raises:
        InputError: the folder is missing, is no model folder or is damaged, its adapter is not LoRA, the base model
            of its adapter is missing, or ``base_path`` is given for a folder that holds all weights.
    """
    from guardreasoner.model.adapter_folder import no_model_in
    from guardreasoner.model.lora import require_plain_lora, require_same_adapter

    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{path}: no such model folder")
    adapter = read_json(folder / "adapter_config.json")
    if adapter is None and not (folder / "config.json").is_file():
        raise no_model_in(path)
    require_intact(path)
    if adapter is None and base_path is not None:
        raise InputError(f"--base_path: {path} holds all weights, no adapter of a base model", "leave it out")
    if adapter is not None:
        require_plain_lora(path, adapter)
        if not (folder / GUARD_FILE).is_file():
            raise InputError(
                f"{path}: an adapter without {GUARD_FILE}, so that its prompt format is not known",
                "merge it in the tool that made it, or train it further here first (docs/stage-two.md)",
            )
    manifest = Manifest.read(folder)
    backbone = _trained_backbone(manifest.config if manifest else None)
    trained: Any = backbone.get("quantization") if quantization is None else quantization
    dtype: Any = backbone.get("dtype")
    source = ExportSource(
        path,
        adapter,
        "4bit" if adapter and trained == "4bit" else None,
        dtype if dtype in get_args(Dtype) else "float32",
        base_path,
    )
    base = Path(source.base)
    if base.is_absolute() and not (base / "config.json").is_file():
        raise InputError(f"{path}: the weights of its base model are missing: no model folder {base}", GIVE_BASE)
    if adapter is not None:
        require_same_adapter(path, adapter, None, base_path)
    return source


def export_adapter(source: ExportSource, folder: Path) -> None:
    """Copy what is needed to use an adapter beside its base model: weights, config, tokenizer and prompt format.

    Raises:
        InputError: the model has no adapter.
    """
    from guardreasoner.model.lora import write_base

    if source.adapter is None:
        raise InputError(f"{source.path}: has no adapter, it holds all weights", "--as merged copies them")
    for file in sorted(Path(source.path).iterdir()):
        if file.is_file() and file.name.endswith(_COPIED) and file.name != MANIFEST:
            shutil.copyfile(file, folder / file.name)
    if source.base_path is not None:
        write_base(folder, source.base_path)


def export_merged(source: ExportSource, tokenizer: PromptTokenizer, dtype: Dtype, folder: Path) -> None:
    """Write a model folder without an adapter: weights, tokenizer, prompt format and calibrations.

    Raises:
        InputError: the model cannot be loaded or merged.
    """
    network = _merged_network(source, tokenizer, dtype)
    network.save_pretrained(folder)
    tokenizer.tokenizer.save_pretrained(folder)
    _write_guard_file(source, tokenizer, folder)


def export_transformers(source: ExportSource, tokenizer: PromptTokenizer, dtype: Dtype, folder: Path) -> None:
    """Write a model folder whose chat template renders the guard's own prompts.

    Its generation config makes answers greedy and long enough, also in servers that take their defaults from it.

    Raises:
        InputError: the model cannot be loaded or merged, or no chat template renders its prompts.
    """
    from transformers import GenerationConfig

    from guardreasoner.guard.chat_export import exported_tokenizer

    chat = exported_tokenizer(tokenizer)
    network = _merged_network(source, tokenizer, dtype)
    own = network.generation_config.eos_token_id
    ends = {tokenizer.end, *(own if isinstance(own, list) else [] if own is None else [own])}
    network.generation_config = GenerationConfig(
        do_sample=True,
        top_k=1,  # of one candidate: greedy; a temperature of 0 is not accepted by all tools
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.padding,
        bos_token_id=tokenizer.tokenizer.bos_token_id,
    )
    network.save_pretrained(folder)
    chat.save_pretrained(folder)
    _name_tokenizer_class(folder)
    _write_guard_file(source, tokenizer, folder)


def _merged_network(source: ExportSource, tokenizer: PromptTokenizer, dtype: Dtype) -> Any:
    """Return the network with its adapter merged in float32, then converted."""
    import torch

    from guardreasoner.model.log_probs import adopt_output_layer
    from guardreasoner.model.lora import attach_adapter

    if source.adapter is None:
        network = load_network(source.path, getattr(torch, dtype))
    else:
        network = load_network(source.base, torch.float32, source.quantization)
    if getattr(network, "hf_quantizer", None) is not None:
        try:
            network = network.dequantize()
        except (NotImplementedError, ValueError) as error:
            raise InputError(f"{source.base}: its weights cannot be dequantized: {error}") from None
    head = network.get_output_embeddings().weight
    tokenizer.require_embeddings(min(len(head), len(network.get_input_embeddings().weight)))
    if source.adapter is not None:
        adopt_output_layer(network)
        adapted = attach_adapter(network, source.path, source.adapter, None, source.base_path)
        network = adapted.merge_and_unload(safe_merge=True)
        if network.get_input_embeddings().weight is not network.get_output_embeddings().weight:
            network.config.tie_word_embeddings = False  # the adapter holds a trained copy of one of them
    return network.to(getattr(torch, dtype))


def _write_guard_file(source: ExportSource, tokenizer: PromptTokenizer, folder: Path) -> None:
    """Write the prompt format and the calibrations, without the fingerprint of an adapter's base model."""
    stored = read_json(Path(source.path) / GUARD_FILE) or {"format": tokenizer.format.as_json()}
    content = {key: value for key, value in stored.items() if key != "base"}
    (folder / GUARD_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _name_tokenizer_class(folder: Path) -> None:
    """Name the tokenizer's class as transformers 4 does too, so that servers that still use it can load the folder."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )


def _trained_backbone(config: Any) -> dict[str, Any]:
    """Return the options of the backbone in the config of a fit, or of an exported adapter; empty if there are none."""
    if isinstance(config, dict) and config.get("as") == "adapter":
        return config  # which has the quantization and the data type of the fit
    for key in ("model", "init_args", "backbone"):
        config = config.get(key) if isinstance(config, dict) else None
    return config if isinstance(config, dict) else {}
