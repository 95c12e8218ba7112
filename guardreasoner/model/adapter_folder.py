"""Adapter folders, also those that other tools wrote: what they hold, and whether it fits a base model."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.model.loading import GIVE_BASE, loading
from guardreasoner.workflow.guard_file import is_model_folder

ADAPTER_WEIGHTS = "adapter_model.safetensors"

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_TRAINING_STATE = ("optimizer.*", "scheduler.*", "trainer_state.json", "rng_state*", "global_step*", "zero_to_fp32.py")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_PREFIX = "base_model.model."
_PART = re.compile(r"\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|lora_bias)(\..*)?$")
_EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of ``init_lora_weights`` that take what the new adapter holds out of the base model's weights."""


def no_model_in(path: str) -> InputError:
    """Return the error for a folder without a model, which says what it holds instead and where models are near."""
    folder = Path(path)
    nearby = [child for child in _folders(folder) if is_model_folder(child)]
    if not nearby:
        nearby = [one for one in (folder.parent, *_folders(folder.parent)) if one != folder and is_model_folder(one)]
    hint = f"models are in {', '.join(map(str, nearby[:4]))}" if nearby else None
    state = sorted(found.name for pattern in _TRAINING_STATE for found in folder.glob(pattern))
    if (folder / ADAPTER_WEIGHTS).is_file():
        return InputError(f"{path}: has {ADAPTER_WEIGHTS} but no adapter_config.json", hint)
    if state:
        return InputError(
            f"{path}: the state of a training run ({', '.join(state[:3])}) without a model: expected "
            f"adapter_config.json with {ADAPTER_WEIGHTS}, or config.json with model.safetensors",
            hint,
        )
    return InputError(f"{path}: not a model folder: found neither config.json nor adapter_config.json", hint)


def no_weights_in(path: str) -> InputError:
    """Return the error for an adapter folder without safetensors, which says where complete ones are near."""
    folder = Path(path)
    nearby = [child for child in _folders(folder) if (child / ADAPTER_WEIGHTS).is_file()]
    hint = None
    if (folder / "adapter_model.bin").is_file():
        hint = "save it as safetensors in the tool that made it (peft: save_pretrained(…, safe_serialization=True))"
    elif nearby:
        hint = f"complete adapters are in {', '.join(map(str, nearby[:4]))}"
    return InputError(f"{path}: no {ADAPTER_WEIGHTS}; pickled weights (adapter_model.bin) are never loaded", hint)


def has_tokenizer(path: str) -> bool:
    """Return whether a folder holds a tokenizer; many tools leave it to the base model."""
    return any((Path(path) / name).is_file() for name in _TOKENIZER_FILES)


def require_unchanged_base(path: str, config: Mapping[str, Any]) -> None:
    """Refuse an adapter whose initialization changed the weights of its base model, such as PiSSA.

    peft changes the base model again when it loads such an adapter, but only nearly in the same way, and not at all in
    4 bits.

    Args:
        path: folder of the adapter.
        config: content of its ``adapter_config.json``.

    Raises:
        InputError: it is such an adapter.
    """
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGE_THE_BASE):
        raise InputError(
            f"{path}: adapter_config.json: init_lora_weights {start!r}: such an adapter belongs to changed weights of "
            "its base model, which are not stored with it",
            "convert it to plain LoRA in the tool that made it (LLaMA-Factory: pissa_convert: true, then the folder "
            "pissa_converted; peft: path_initial_model_for_weight_conversion), or merge it there",
        )


def embedding_rows_of(path: str) -> int | None:
    """Return the number of token ids that an adapter's own embedding or output layer has; None if it has neither.

    A tool that adds tokens resizes the model and saves both layers with the adapter.

    Args:
        path: folder of the adapter.

    Raises:
        InputError: the weights cannot be read.
    """
    from safetensors import safe_open

    def rows() -> list[int]:
        with safe_open(Path(path) / ADAPTER_WEIGHTS, "pt") as file:
            # an adapter of the embedding has further parts with that name, whose rows are of another kind
            return [file.get_slice(n).get_shape()[0] for n in file.keys() if n.endswith(_EMBEDDINGS)]  # noqa: SIM118

    found = set(loading(path, rows)) if (Path(path) / ADAPTER_WEIGHTS).is_file() else set()
    if len(found) > 1:
        raise InputError(f"{path}: its embedding and its output layer have different numbers of rows: {sorted(found)}")
    return next(iter(found), None)


def require_fitting(path: str, base: str, config: Mapping[str, Any], saved: Mapping[str, Any], network: Any) -> None:
    """Require that an adapter's weights have the places and shapes of a base model.

    An adapter of some layers fits into any deeper model of the same width. Whether it was trained on one shows only if
    the model that it names, or a copy of that model's config beside it, can be read here.

    Args:
        path: folder of the adapter.
        base: folder or hub id of the base model, for the message.
        config: content of the adapter's ``adapter_config.json``.
        saved: the adapter's weights by name.
        network: the base model, without the adapter.

    Raises:
        InputError: the base model has other layers, or layers of another size.
    """
    layers = network.config.get_text_config().num_hidden_layers
    used = sorted({int(found[1]) for name in saved if (found := _LAYER.search(name))})
    if used and used[-1] >= layers:
        raise other_base(path, base, f"it adapts layer {used[-1]} (counted from 0), the base model has {layers} layers")
    for place, number in _known_depths(path, config):
        if number != layers:
            raise other_base(path, base, f"{place} has {number} layers, the base model has {layers}")
    modules = dict(network.named_modules())
    for name, weight in saved.items():
        module, part = _split(name)
        if part is None:
            continue
        if name.endswith((".lora_A.weight", ".lora_B.weight")) and (weight.dim() < 2 or not weight.numel()):
            raise InputError(
                f"{path}: {name} is empty or flat: one shard of sharded weights (DeepSpeed ZeRO-3, FSDP)",
                "gather the weights when saving (DeepSpeed: stage3_gather_16bit_weights_on_model_save)",
            )
        layer = modules.get(module)
        if layer is None:
            raise other_base(path, base, f"it adapts {module}, which the base model does not have")
        for what, wanted, size in _sizes(part, weight, layer):
            if wanted != size:
                raise other_base(path, base, f"{module} has {size} {what}, the adapter is for {wanted}")


def other_base(path: str, base: str, reason: str) -> InputError:
    """Return the error for an adapter that was trained on another base model.

    Args:
        path: folder of the adapter.
        base: folder or hub id of the base model that it is to be used with.
        reason: how that differs.
    """
    return InputError(f"{path}: does not fit the base model {base}: {reason}", GIVE_BASE)


def require_same_vocabulary(path: str, base: str, tokenizer: Any) -> None:
    """Require that the tokenizer of an adapter folder gives the ids of its base model.

    Tokens that were added or renamed, such as the markers of a chat, do not count; the words of the vocabulary do.

    Args:
        path: folder of the adapter.
        base: folder or hub id of the base model; nothing is checked if it has no tokenizer.
        tokenizer: tokenizer of the adapter folder.

    Raises:
        InputError: an id stands for another text.
    """
    from transformers import AutoTokenizer

    if Path(base).is_dir() and not has_tokenizer(base):
        return
    others = loading(base, lambda: AutoTokenizer.from_pretrained(base, trust_remote_code=False))
    own, theirs = _words(tokenizer), _words(others)
    for token_id in sorted(own.keys() & theirs.keys()):
        if own[token_id] != theirs[token_id]:
            raise other_base(
                path, base, f"token {token_id} is {own[token_id]!r} here and {theirs[token_id]!r} in the base model"
            )
    if extra := sorted(theirs.keys() - own.keys() - tokenizer.added_tokens_decoder.keys()):
        raise other_base(path, base, f"its tokenizer has no token {extra[0]}, {theirs[extra[0]]!r} in the base model")


def _known_depths(path: str, config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield (folder, number of layers) of each readable config of the model that an adapter was trained on."""
    from transformers import AutoConfig

    for place in (config.get("base_model_name_or_path"), path):  # the second as Axolotl leaves it
        if isinstance(place, str) and (Path(place) / "config.json").is_file():
            with suppress(InputError, AttributeError):  # damaged, or of a model without layers: nothing is known
                found = loading(place, partial(AutoConfig.from_pretrained, place, trust_remote_code=False))
                yield place, found.get_text_config().num_hidden_layers


def _words(tokenizer: Any) -> dict[int, str]:
    """Return the tokens of the vocabulary by id, without added ones."""
    added = tokenizer.added_tokens_decoder
    return {token_id: token for token, token_id in tokenizer.get_vocab().items() if token_id not in added}


def _split(name: str) -> tuple[str, str | None]:
    """Return the module that a weight of an adapter belongs to, and its part; None for a layer saved as a whole."""
    found = _PART.search(name)
    module = name.removeprefix(_PREFIX)
    return (module, None) if found is None else (_PART.sub("", module), found[1])


def _sizes(part: str, weight: Any, layer: Any) -> Iterator[tuple[str, int, int]]:
    """Yield (what, size in the adapter, size in the base model) of a part."""
    if part == "lora_A" and hasattr(layer, "in_features"):
        yield "inputs", weight.shape[1], layer.in_features
    if part == "lora_B" and hasattr(layer, "out_features"):
        yield "outputs", weight.shape[0], layer.out_features
    if part == "lora_embedding_A" and hasattr(layer, "num_embeddings"):
        yield "rows", weight.shape[1], layer.num_embeddings


def _folders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, those with the latest checkpoint first."""
    found = [one for one in folder.iterdir() if one.is_dir() and one.name[0] != "."] if folder.is_dir() else []
    return sorted(found, key=lambda one: [int(n) for n in re.findall(r"\d+", one.name)], reverse=True)
