"""Locks of runs, also on file systems that have none."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from guardreasoner.errors import InputError
from guardreasoner.workflow import file_lock
from guardreasoner.workflow.file_lock import FileLock


def lock_at(folder: Path) -> FileLock:
    return FileLock(folder / "lock", "out")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch a foreign lock for half a second."""
    monkeypatch.setattr(file_lock, "_SILENCE", 0.5)
    monkeypatch.setattr(file_lock, "_BEAT", 0.1)


def test_one_process_holds_a_lock(tmp_path: Path) -> None:
    first, second = lock_at(tmp_path), lock_at(tmp_path)
    first.acquire()
    with pytest.raises(InputError, match=rf"^out: another run is writing here \(process {os.getpid()} on "):
        second.acquire()
    second.release()  # has no effect
    assert first.path.exists()
    first.release()
    assert not first.path.exists()
    second.acquire()
    second.release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from guardreasoner.workflow.file_lock import FileLock\n"
        "FileLock(pathlib.Path(sys.argv[1]), 'out').acquire(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "lock")], cwd=Path(__file__).parents[2])
    assert "process" in json.loads((tmp_path / "lock").read_text())
    lock_at(tmp_path).acquire()


def test_a_lock_can_be_waited_for(tmp_path: Path) -> None:
    first, second = lock_at(tmp_path), lock_at(tmp_path)
    first.acquire()
    with pytest.raises(InputError, match="another run is writing here"):
        second.acquire(wait=0.2)
    release = Timer(0.3, first.release)
    release.start()
    second.acquire(wait=30)
    release.join()  # the lock is free before the first object says so
    assert (first.held, second.held) == (False, True)
    release.join()
    second.release()


@pytest.mark.usefixtures("quick")
def test_a_living_holder_on_another_host_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each host sees its own locks only, as on some network file systems."""
    first, second = lock_at(tmp_path), lock_at(tmp_path)
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    monkeypatch.setattr("platform.node", lambda: "far")
    first.acquire()
    monkeypatch.setattr("platform.node", lambda: "near")
    with pytest.raises(InputError, match=r"another run is writing here \(process \d+ on far\)"):
        second.acquire()
    first._released.set()  # it falls silent, as after a crash
    second.acquire()
    first.release()  # no longer its own
    assert json.loads(second.path.read_text())["host"] == "near"


@pytest.mark.usefixtures("quick")
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    first, second = lock_at(tmp_path), lock_at(tmp_path)
    first.acquire()
    with pytest.raises(InputError, match="another run is writing here"):
        second.acquire()
    first.release()
    second.acquire()
    second._released.set()
    first = lock_at(tmp_path)
    first.acquire()
    assert first.held
