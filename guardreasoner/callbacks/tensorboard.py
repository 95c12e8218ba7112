"""Texts and plots in TensorBoard."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from guardreasoner.report.plot import Plot, draw_figures

_WIDTH, _DPI = 5.0, 150
"""Inches and dots per inch: text is readable on TensorBoard's small cards and sharp when a card is enlarged."""


@runtime_checkable
class EventWriter(Protocol):
    """The part of TensorBoard's ``SummaryWriter`` that the callbacks use."""

    def add_text(self, tag: str, text_string: str, global_step: int) -> None:
        """Write a Markdown text."""

    def add_figure(self, tag: str, figure: Any, global_step: int) -> None:
        """Write a matplotlib figure as an image."""


def event_writers(trainer: Any) -> Iterator[EventWriter]:
    """Yield the writers of the trainer's TensorBoard loggers; loggers that take only numbers have none."""
    for logger in trainer.loggers:
        if isinstance(logger.experiment, EventWriter):
            yield logger.experiment


def write_text(trainer: Any, tag: str, markdown: str, step: int) -> None:
    """Write a text to TensorBoard."""
    for writer in event_writers(trainer):
        writer.add_text(tag, markdown, step)


def write_plots(trainer: Any, group: str, plots: Sequence[Plot]) -> None:
    """Write plots to TensorBoard as images ``GROUP/NAME`` at the trainer's step."""
    for writer in event_writers(trainer):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # names may use any script
            for name, figure in draw_figures(plots, width=_WIDTH).items():
                figure.set_dpi(_DPI)
                writer.add_figure(f"{group}/{name}", figure, trainer.global_step)
