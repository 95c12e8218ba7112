"""What a command prints of its log: this project's lines on stdout, and no warnings that a user cannot act on."""

import logging
import sys
import warnings
from typing import TextIO

from guardreasoner.workflow.terminal import terminal_text

log = logging.getLogger("guardreasoner")


def hide_library_warnings() -> None:
    """Hide library warnings that a user cannot act on."""
    for name in ("pytorch.utilities.rank_zero", "pytorch.accelerators.cuda", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in (
        "does not have many workers",
        "Total length of .DataLoader. across ranks is zero",
        "LeafSpec",
        "LightningCLI's args parameter",
        "log_every_n_steps",
        "overridden `transfer_batch",
        "in eval mode at the start",
        "`is_gradient_checkpointing` is deprecated",  # transformers, called by peft
        "`gradient_checkpointing_enable` is deprecated",  # transformers; its new name is not in version 4
    ):
        warnings.filterwarnings("ignore", f".*{message}")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on import: the optional package kernels is missing


class _StdoutHandler(logging.StreamHandler):
    """Writes to what is ``sys.stdout`` at the moment, which a caller may replace between two commands."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """Standard output of the moment."""
        return sys.stdout


class _TerminalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return terminal_text(super().format(record))


def show_log() -> None:
    """Print this project's log lines to stdout."""
    if not log.handlers:
        handler = _StdoutHandler()
        handler.setFormatter(_TerminalFormatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
