"""The line that says that the default base model is a toy."""

import json
from math import prod
from pathlib import Path

from guardreasoner.workflow.config import Command
from guardreasoner.workflow.manifest import Manifest


def toy_line(command: Command) -> str | None:
    """Return the line to print at a fit whose chain starts from random weights; None if it starts from a real model.

    Args:
        command: the fit, whose inputs exist.
    """
    base = str(command.config["recipe"].get("base"))
    manifest = Manifest.read(base)
    if manifest is None or manifest.command[:1] != ["base-model"]:
        return None
    if "--from" in manifest.command or (manifest.config or {}).get("from"):
        return None
    size = _parameters(Path(base, "model.safetensors"))
    return (
        f"{base} is a toy made for seeing the chain ({size / 1e6:.2f} M parameters, random weights);\n"
        "a real model is an overlay, such as --config configs/model/llama-3.2-3b-qlora.yaml"
    )


def _parameters(file: Path) -> int:
    """Return the number of parameters in a safetensors file, from its header."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
