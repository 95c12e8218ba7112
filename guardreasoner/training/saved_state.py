"""Reading what ``torch.save`` wrote (checkpoints, optimizer states) without running code that a file may hold."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from guardreasoner.errors import InputError

_DAMAGED = (UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError)
"""What ``torch.load`` raises for files that are damaged, of another format, or that hold other objects."""


def load_state(path: str | Path, key: str, map_location: Any = "cpu") -> Any:
    """Load tensors and plain values from a file on this machine; never run code from it.

    Args:
        path: the file. It is opened as a file, also if its name looks like a URL.
        key: config key that names it, for messages.
        map_location: device to load to, as in ``torch.load``.

    Raises:
        InputError: there is no such file, it is damaged, or it holds other objects.
    """
    try:
        with open(path, "rb") as file:
            return torch.load(file, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{key}: {path}: no such file") from None
    except _DAMAGED as error:
        raise InputError(
            f"{key}: {path}: cannot be loaded; it is damaged, or holds more than tensors and plain values",
            "files that could run code are never loaded",
        ) from error
