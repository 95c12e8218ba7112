"""SIGTERM and SIGINT: the first signal stops a run at its next safe moment, a second one ends it at once."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_ONE_SIGNAL = 0.5
"""Seconds within which further signals count as the same one. A terminal signals all processes of a run, and the first
process passes the signal on to the others."""

_PR_SET_PDEATHSIG = 1
"""From Linux's ``sys/prctl.h``."""

_PRESS_AGAIN = b"stopping after the outputs in progress; press Ctrl-C again to end at once\n"
_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(SystemExit):
    """Ends a run after a signal, with the exit code 128 + number of the signal.

    Args:
        number: the signal.
        progress: what is done, and how to resume; "" if there is nothing to say.
    """

    def __init__(self, number: int, progress: str = "") -> None:
        self.exit_code = 128 + number
        super().__init__(self.exit_code)
        self.number = number
        self.progress = progress

    def line(self) -> str:
        """Return the line to print to stderr."""
        name = signal.Signals(self.number).name
        return f"stopped by {name}: {self.progress}" if self.progress else f"stopped by {name}"


class TimeOver(Stopped):
    """Ends a run after its time limit, with the exit code of the program ``timeout``.

    Args:
        progress: what is done, and how to resume.
    """

    def __init__(self, progress: str) -> None:
        super().__init__(0, progress)
        self.code = self.exit_code = 124

    def line(self) -> str:
        """Return the line to print to stderr."""
        return f"stopped by max_time: {self.progress}"


@dataclass
class _State:
    """State of the innermost ``handled()``.

    Args:
        received: the first signal.
        at: when it arrived.
        deferred: whether a signal waits for the next ``check()`` instead of raising ``Stopped`` in the handler.
        forward: passes a signal on to other processes.
        progress: what ``Stopped`` will say.
    """

    received: int | None = None
    at: float = 0.0
    deferred: bool = False
    forward: Callable[[int], None] | None = None
    progress: str = ""


_states: list[_State] = []
"""One for each ``handled()`` that is active, the innermost last."""


@contextmanager
def handled() -> Iterator[None]:
    """Handle both signals until the end of the block, in which the first one raises ``Stopped``.

    After a signal, any other exception is replaced by ``Stopped``: it is a consequence of the signal, such as a lost
    connection to another process that was stopped too. Outside the main thread, which alone receives signals, this does
    nothing.

    Raises:
        Stopped: a signal arrived.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    state = _State()
    # A shell starts background commands with SIGINT ignored.
    numbers = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.signal(number, _handle) for number in numbers}
    _states.append(state)
    try:
        yield
    except Stopped as stopped:
        stopped.progress = stopped.progress or state.progress
        raise
    except BaseException as error:
        if state.received is None:
            raise
        cause = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        own = isinstance(error, SystemExit | KeyboardInterrupt)
        raise Stopped(state.received, state.progress or ("" if own else cause)) from error
    finally:
        _states.remove(state)
        for number, handler in former.items():
            signal.signal(number, handler)


def defer(forward: Callable[[int], None] | None = None) -> None:
    """From now on, let a signal wait for the next ``check()``.

    This also takes the handlers back from a library that has replaced them.

    Args:
        forward: passes a signal on to other processes of the run.
    """
    if not _states:
        return
    state = _states[-1]
    state.deferred, state.forward = True, forward
    take_handlers_back()
    if state.received is not None and forward is not None:
        forward(state.received)


def take_handlers_back() -> None:
    """Install the handlers again after a library has replaced them."""
    if _states and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _handle)


def note(progress: str) -> None:
    """Set what ``Stopped`` will say is done."""
    if _states:
        _states[-1].progress = progress


def received() -> int | None:
    """Return the signal that arrived, if one did."""
    return _states[-1].received if _states else None


def check() -> None:
    """Stop here if a signal has arrived.

    Raises:
        Stopped: the run must stop.
    """
    if _states and (number := _states[-1].received) is not None:
        raise Stopped(number, _states[-1].progress)
    check_parent()


def check_parent() -> None:
    """Stop here if the first process of this run has started this one and is gone; it must not write any more.

    Raises:
        Stopped: this process must stop.
    """
    if is_later_process() and os.getppid() != _parent:
        raise Stopped(signal.SIGTERM)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Get a signal as soon as the process that started this one has ended, however it did; only on Linux."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != _parent:
        os.kill(os.getpid(), number)


def is_later_process() -> bool:
    """Return whether this is a process of a distributed run other than the first."""
    ranks = (os.environ.get(name, "0") for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))
    return any(rank not in ("", "0") for rank in ranks)


_parent = os.getppid()


def _remember_parent() -> None:
    global _parent
    _parent = os.getppid()


os.register_at_fork(after_in_child=_remember_parent)


def _handle(number: int, _: object) -> None:
    if not _states:
        raise Stopped(number)
    state = _states[-1]
    if state.received is None:
        state.received, state.at = number, time.monotonic()
        _pass_on(number, state)
        if not state.deferred:
            raise Stopped(number, state.progress)
        if state.forward is None and number == signal.SIGINT and sys.stderr.isatty():
            os.write(2, _PRESS_AGAIN)  # print() must not be called again while it runs
    elif time.monotonic() - state.at >= _ONE_SIGNAL:
        _pass_on(number, state)
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)  # a progress bar hides it
        os._exit(128 + number)


def _pass_on(number: int, state: _State) -> None:
    if state.forward is not None:
        state.forward(number)
    for child in multiprocessing.active_children():
        if child.pid is not None and not child.daemon:  # a daemon ends with this process
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)
