"""Reasoning from a teacher model: its prompt, its answers and their cost."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


@runtime_checkable
class WritesOutput(Protocol):
    """A module that writes its output and shows its progress itself, so that ``predict`` adds no callback for them."""

    writes_output: bool


@runtime_checkable
class EstimatesCost(Protocol):
    """A module that supports ``predict --dry_run``."""

    def estimator(self) -> "LightningModule":
        """Return a module that runs in place of this one and logs what a run would cost."""
        ...
