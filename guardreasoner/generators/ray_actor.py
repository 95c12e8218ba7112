"""What runs in an actor of Ray: an engine, and the model that it answers with."""

import pickle
import platform
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a chunk has no completions.

    Args:
        message: one line.
        hint: at most one more.
        trace: where it happened, for who calls from Python.
    """

    message: str
    hint: str | None
    trace: str

    @classmethod
    def of(cls, error: Exception) -> "Fault":
        """Return what an error on this machine says."""
        if isinstance(error, InputError):
            message, hint = str(error), error.hint
        else:
            first = (str(error).strip() or "no more is said").splitlines()[0]
            message, hint = f"generator.engine: {type(error).__name__}: {first}", None
        return cls(f"{message} (on {platform.node()})", hint, traceback.format_exc())


class EngineActor:
    """Answers one chunk of requests after the other.

    Errors travel as a chunk's outcome: raised, they would reach the driver as a report of Ray's over many lines, and
    some of them Ray would meet by starting the actor again, for ever.

    Args:
        content: a backbone, of which nothing is loaded, and the engine that was made with it, pickled together.
        threads: of torch.
        device: where the weights are moved to, if the engine needs them loaded.
    """

    def __init__(self, content: bytes, threads: int, device: str) -> None:
        self.content = content
        self.threads = threads
        self.device = device
        self._engine: Generator | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, bytes]:
        """Return a chunk's completions or its :class:`Fault`, pickled, as ``outcome``.

        Args:
            row: the chunk, a list of requests, pickled, as ``requests``.
        """
        outcome: Sequence[Completion] | Fault
        try:
            # Ray counts the threads of a process by its own rules, and their number decides about last digits
            torch.set_num_threads(self.threads)
            if self._engine is None:
                self._engine = self._loaded()
            requests: list[Request] = pickle.loads(row["requests"])
            outcome = [completion for part in self._engine.parts(requests) for completion in part]
        except Exception as error:
            outcome = Fault.of(error)
        return {"outcome": pickle.dumps(outcome)}

    def _loaded(self) -> Generator:
        backbone, engine = pickle.loads(self.content)
        if Path(backbone.path).is_absolute() and not Path(backbone.path).is_dir():
            raise InputError(
                f"{backbone.path}: no such model folder",
                "every machine of the cluster must find it at this path, as on a shared file system",
            )
        if engine.needs_weights:
            backbone.load()
            backbone.to(self.device)
        return engine
