"""SIGTERM and SIGINT as requests to stop: at once, or where the work can be saved."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from guardreasoner.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Handle SIGTERM and SIGINT while the context is open.

    A signal raises ``Interrupted`` where it arrives. While ``deferred`` is true, the first one is only stored in
    ``received``, and whoever does the work stops at the next place where it can be saved; a second one raises.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.received = 0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        """Install the handlers."""
        self._former = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Install the former handlers again."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._former.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Install the handlers again, after a library has replaced them; outside the context, do nothing."""
        if self._former and threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_first = not self.received
        self.received = number
        if not (self.deferred and is_first):
            raise stopped(number, "")


def stopped(number: int, what: str) -> Interrupted:
    """Return the exception of a command that a signal stopped.

    Args:
        number: the signal.
        what: rest of the line: what is saved, how to continue.
    """
    return Interrupted(f"stopped by {signal.Signals(number).name}{what}", 128 + number)
