"""Standard streams that are closed or cannot be written: a run that only reports on them goes on."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


def open_streams() -> None:
    """Open standard streams that the caller has closed, which Python sets to None, on the null device.

    Otherwise the next file that is opened gets the number of a standard stream, and messages are written to it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (open until the process ends)


def discard_unwritable(stream: TextIO) -> None:
    """Send a stream that cannot be flushed to the null device, so that Python does not fail again at exit."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def surviving_output() -> Iterator[None]:
    """Let a run go on if its standard output cannot be written, such as a file on a full disk."""
    stdout = sys.stdout
    sys.stdout = _Surviving(stdout)
    try:
        yield
    finally:
        sys.stdout = stdout


class _Surviving:
    """A text stream that is silent after the first failure, which it reports on standard error.

    Args:
        stream: the stream to write to. All but writing is left to it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failed = False

    def write(self, text: str) -> int:
        """Write text, unless an earlier write has failed."""
        if not self._failed:
            self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream, unless an earlier write has failed."""
        if not self._failed:
            self._attempt(self._stream.flush)

    def _attempt(self, action: Any) -> None:
        try:
            action()
        except BrokenPipeError:
            raise  # the reader has gone, as with ``| head``: the run ends
        except OSError as error:
            self._failed = True
            discard_unwritable(self._stream)
            print(f"warning: standard output: {error.strerror}; the run goes on without it", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
