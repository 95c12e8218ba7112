"""A lock that at most one process holds, also on network file systems on which hosts do not see each other's locks."""

import fcntl
import json
import logging
import os
import platform
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError

log = logging.getLogger("guardreasoner")

_BEAT = 5.0
"""Seconds between two changes of the file's time, by which its holder shows other hosts that it is alive."""

_SILENCE = 30.0
"""Seconds without a change after which a holder on another host counts as gone."""


_PAUSE = 0.1
"""Seconds between two attempts to take a lock that another process holds."""


class FileLock:
    """A lock file, which names its holder: host, process and a random token.

    The operating system's lock on the file decides between processes of one host, and ends with its holder. Another
    host may not see it, so a file that names another host is watched first: as long as its time changes, its holder is
    alive. Where the file system has no locks, this also decides between processes of one host.

    Args:
        path: the lock file; its folder must exist.
        what: what the error message calls the locked thing.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        self._token = ""
        self._descriptor: int | None = None
        self._released = threading.Event()

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, wait: float = 0.0) -> None:
        """Take the lock.

        Args:
            wait: seconds to wait for another process that holds it.

        Raises:
            InputError: another process holds it, or still does after the wait.
            FileNotFoundError: the folder does not exist.
        """
        end = time.monotonic() + wait
        while self._descriptor is None:
            try:
                self._try()
            except InputError:
                if time.monotonic() >= end:
                    raise
                time.sleep(_PAUSE)
        threading.Thread(target=self._show_life, name="file-lock", daemon=True).start()

    def release(self) -> None:
        """Remove the file and free the lock; do nothing if it is not held."""
        if self._descriptor is None:
            return
        self._released.set()
        with suppress(OSError):
            if self._holder().get("token") == self._token:
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def _try(self) -> None:
        """Try to take the lock until the file at the path is the locked one."""
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if self._take(descriptor):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)

    def _take(self, descriptor: int) -> bool:
        """Lock an open file; return False if it is no longer the file at the path."""
        has_locks = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal() from None
        except OSError:
            has_locks = False
        try:
            if not os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                return False
        except FileNotFoundError:
            return False
        holder = self._holder()
        if holder and (not has_locks or holder.get("host") != platform.node()) and self._shows_life():
            raise self._refusal()
        self._token = secrets.token_hex(8)
        row = {"host": platform.node(), "process": os.getpid(), "token": self._token}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(row).encode(), 0)
        if not has_locks:
            time.sleep(0.2)  # two processes may have got here; the one that wrote last holds the lock
            if self._holder().get("token") != self._token:
                raise self._refusal()
        return True

    def _holder(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            row = json.loads(self.path.read_bytes())
            return row if isinstance(row, dict) else {}
        return {}

    def _refusal(self) -> InputError:
        holder = self._holder()
        named = f" (process {holder.get('process')} on {holder.get('host')})" if holder else ""
        return InputError(f"{self.what}: another run is writing here{named}", "wait for it, or choose another output")

    def _shows_life(self) -> bool:
        """Watch the file; return whether its time changes."""
        log.info("waiting %.0f s to see whether the run that holds %s is alive", _SILENCE, self.path)
        changed = self._time()
        end = time.monotonic() + _SILENCE
        while time.monotonic() < end:
            time.sleep(_BEAT / 10)
            if self._time() != changed:
                return True
        return False

    def _time(self) -> int:
        # opened, since a network file system may answer stat() from its cache
        with suppress(OSError), self.path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
        return 0

    def _show_life(self) -> None:
        while not self._released.wait(_BEAT):
            with suppress(OSError):
                os.utime(self.path)
