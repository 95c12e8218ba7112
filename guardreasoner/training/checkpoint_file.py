"""Training checkpoints on the disk: written completely or not at all, and checked when they are read."""

import errno
import os
import secrets
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from guardreasoner.errors import InputError
from guardreasoner.training.saved_state import load_state
from guardreasoner.workflow.sealed_file import beside, is_damaged, seal


class SealedCheckpointIO(TorchCheckpointIO):
    """Write checkpoints beside their target, sync and rename them, and store their SHA-256 in ``NAME.ckpt.json``.

    Lightning's own writer goes through the system's temporary folder, which may be on another file system, where a
    rename is not atomic. Checkpoints are read with :func:`load_state`, whatever a caller asks for.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: the state.
            path: target file.
            storage_options: details to store beside the file, JSON-serializable.

        Raises:
            OSError: the file cannot be written; an older file of the same name is unchanged.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            try:
                with partial.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
            except RuntimeError as error:
                # What torch raises when its writer fails, for example on a full disk.
                raise OSError(errno.EIO, str(error).splitlines()[0], str(path)) from error
            seal(partial, path, storage_options)
        finally:
            partial.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; whatever ``weights_only`` is, no code in it is run.

        Raises:
            InputError: the file is missing, damaged, or not a checkpoint.
        """
        path = Path(path)
        if path.is_file() and is_damaged(path):
            raise InputError(f"ckpt_path: {path}: damaged: its SHA-256 is not the one in {beside(path).name}")
        checkpoint = load_state(path, "ckpt_path", map_location)
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise InputError(f"ckpt_path: {path}: not a training checkpoint: it has no state_dict")
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its SHA-256."""
        Path(path).unlink(missing_ok=True)
        beside(Path(path)).unlink(missing_ok=True)
