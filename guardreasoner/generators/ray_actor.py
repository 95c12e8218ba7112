"""The Ray actor that runs an engine and its model."""

import pickle
import platform
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from guardreasoner.errors import InputError
from guardreasoner.generators import Generator


@dataclass(frozen=True, slots=True)
class ChunkError:
    """The error that an actor met on a chunk.

    Args:
        message: one line.
        hint: at most one more line.
        traceback: traceback on the actor's machine, for callers from Python.
    """

    message: str
    hint: str | None
    traceback: str

    @classmethod
    def from_exception(cls, error: Exception) -> "ChunkError":
        """Describe the exception that is being handled on this machine."""
        if isinstance(error, InputError):
            message, hint = str(error), error.hint
        else:
            first_line = (str(error).strip() or "no message").splitlines()[0]
            message, hint = f"generator.engine: {type(error).__name__}: {first_line}", None
        return cls(f"{message} (on {platform.node()})", hint, traceback.format_exc())


class EngineActor:
    """Runs an engine on one chunk of requests after another.

    An error is returned as the result of its chunk. If it were raised, Ray would report it to the driver over many
    lines, and would answer some errors by restarting the actor forever.

    Args:
        content: the backbone, not loaded, and the engine that was made with it, pickled together.
        threads: number of torch threads.
        device: device that the weights are moved to if the engine needs them.
    """

    def __init__(self, content: bytes, threads: int, device: str) -> None:
        self.content = content
        self.threads = threads
        self.device = device
        self._engine: Generator | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, bytes]:
        """Return the pickled results of a chunk, or its pickled ``ChunkError``, under the key ``outcome``.

        Args:
            row: holds, under the key ``call``, a pickled function that takes the engine and returns its results for the
                requests of the chunk.
        """
        outcome: Sequence[Any] | ChunkError
        try:
            # Ray sets the number of threads by its own rules, and the number of threads changes how sums are rounded
            torch.set_num_threads(self.threads)
            if self._engine is None:
                self._engine = self._load_engine()
            outcome = list(pickle.loads(row["call"])(self._engine))
        except Exception as error:
            outcome = ChunkError.from_exception(error)
        return {"outcome": pickle.dumps(outcome)}

    def _load_engine(self) -> Generator:
        backbone, engine = pickle.loads(self.content)
        if Path(backbone.path).is_absolute() and not Path(backbone.path).is_dir():
            raise InputError(
                f"{backbone.path}: no such model folder",
                "every machine of the cluster must have it at this path, as on a shared file system",
            )
        if engine.needs_weights:
            backbone.load()
            backbone.to(self.device)
        return engine
