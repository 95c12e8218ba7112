"""Texts and plots in TensorBoard."""

import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.loggers import TensorBoardLogger

from guardreasoner.report.plot import Plot, draw_figures

log = logging.getLogger("guardreasoner")

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


def hide_writer_thread_errors() -> None:
    """Print no traceback when TensorBoard's thread cannot write; its next call reports the error."""
    former = threading.excepthook

    def hook(raised: threading.ExceptHookArgs) -> None:
        is_writer = type(raised.thread).__module__.startswith("tensorboard.")
        if not (is_writer and isinstance(raised.exc_value, OSError)):
            former(raised)

    threading.excepthook = hook


class LastingTensorBoardLogger(TensorBoardLogger):
    """A TensorBoard logger that falls silent when its folder cannot be written, so that the run goes on."""

    _has_failed = False

    @property
    def experiment(self) -> Any:
        """The writer, whose methods do nothing after a failure."""
        return _LastingWriter(self)

    def attempt(self, action: Callable[[], Any]) -> Any:
        """Return the result of an action; None after a failure, the first of which is reported in one line."""
        if self._has_failed:
            return None
        try:
            return action()
        except OSError as error:
            self._has_failed = True
            log.warning("%s: %s; the run goes on without curves", self.log_dir, error.strerror or error)
        return None

    def open(self) -> Any:
        """Return the writer itself."""
        return super().experiment

    def log_hyperparams(self, *arguments: Any, **more: Any) -> None:
        """Write hyperparameters."""
        self.attempt(lambda: TensorBoardLogger.log_hyperparams(self, *arguments, **more))

    def save(self) -> None:
        """Flush what is logged."""
        self.attempt(lambda: TensorBoardLogger.save(self))

    def finalize(self, status: str) -> None:
        """Flush and close."""
        self.attempt(lambda: TensorBoardLogger.finalize(self, status))


class _LastingWriter:
    def __init__(self, logger: LastingTensorBoardLogger) -> None:
        self._logger = logger

    def add_text(self, *arguments: Any, **more: Any) -> None:
        self._logger.attempt(lambda: self._logger.open().add_text(*arguments, **more))

    def add_figure(self, *arguments: Any, **more: Any) -> None:
        self._logger.attempt(lambda: self._logger.open().add_figure(*arguments, **more))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **more: self._logger.attempt(
            lambda: getattr(self._logger.open(), name)(*arguments, **more)
        )
