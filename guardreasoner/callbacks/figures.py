"""Plots as images in TensorBoard."""

import warnings
from collections.abc import Sequence
from typing import Any

from guardreasoner.plotting import Plot, figures


def add_figures(trainer: Any, group: str, plots: Sequence[Plot]) -> None:
    """Add plots as ``group/name`` to those loggers that take figures, at the trainer's step."""
    for logger in trainer.loggers:
        if hasattr(logger.experiment, "add_figure"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script
                for name, figure in figures(plots).items():
                    logger.experiment.add_figure(f"{group}/{name}", figure, trainer.global_step)
