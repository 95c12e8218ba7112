"""Where a checkpoint may be loaded from: a file on this machine."""

import re
from pathlib import Path

from guardreasoner.errors import InputError

# fsspec reads "PROTOCOL://…" and "PROTOCOL::…"; Lightning also reads "registry:NAME" and what begins with "http".
_REMOTE = re.compile(r"\s*(?:[\w.+-]*:(?://|\\\\|:)|https?:|registry(?::|\s*$))", re.I)


def local_checkpoint(path: str | None) -> str | None:
    """Return the absolute path of a checkpoint on this machine; a name without such a file is returned unchanged.

    The path is absolute because Lightning downloads every path that begins with "http".

    Args:
        path: value of ``ckpt_path``.

    Raises:
        InputError: the path is an address, or the name of a model in a registry.
    """
    if path is None:
        return None
    if _REMOTE.match(path):
        raise InputError(
            f"ckpt_path: expected a file on this machine, got {path!r}",
            "download the checkpoint, and make sure that you trust where it comes from",
        )
    return str(Path(path).absolute()) if Path(path).exists() else path
