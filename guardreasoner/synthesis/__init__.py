"""Reasoning from a teacher model: its prompt, the answers it gave and what they cost."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class WritesOutput(Protocol):
    """A module that may write the output of ``predict`` itself, and then shows its own progress.

    Args:
        writes_output: whether it does; the command line then adds no writer and no progress bar.
    """

    writes_output: bool


@runtime_checkable
class EstimatesCost(Protocol):
    """A module that can say what ``predict`` would cost."""

    def estimator(self) -> Any:
        """Return the LightningModule that runs instead of this one and sends and writes nothing."""
        ...
