"""Plots as images in TensorBoard."""

import warnings
from collections.abc import Sequence
from typing import Any

from guardreasoner.report.plotting import Plot, render_figures

_WIDTH, _DPI = 5.0, 150
"""Inches, so narrow that text is readable on the small cards of TensorBoard, and dots an inch, for who opens one."""


def add_plots(trainer: Any, group: str, plots: Sequence[Plot]) -> None:
    """Add plots as ``group/name`` to those loggers that take figures, at the trainer's step."""
    for logger in trainer.loggers:
        if hasattr(logger.experiment, "add_figure"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script
                for name, figure in render_figures(plots, width=_WIDTH).items():
                    figure.set_dpi(_DPI)
                    logger.experiment.add_figure(f"{group}/{name}", figure, trainer.global_step)
