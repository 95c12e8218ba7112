"""Runs of ``python -m guardreasoner`` that can be killed at a chosen moment.

A child is forked from this process, which has everything imported, so that a run starts in a second. It reports each
optimizer step (``b"s"``) through a pipe, and what ``prepare`` adds. Only those exit handlers run that the child itself
has registered. This process must not have used torch's threads before.
"""

import atexit
import ctypes
import importlib
import os
import select
import signal
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Report = Callable[[bytes], object]
"""Sends a byte to the parent."""
STEP = b"s"


def nothing(report: Report) -> None:
    """Change nothing in the child."""


@dataclass
class Child:
    """A running child.

    Args:
        pid: Its process id, which is also that of its process group.
        pipe: Read end of its pipe.
        log: File with its standard output and error.
    """

    pid: int
    pipe: int
    log: Path
    started: float = field(default_factory=time.monotonic)
    received: bytes = b""
    exit_code: int | None = None
    seconds: float = 0.0

    def wait_for(self, mark: bytes, count: int) -> bool:
        """Wait until the child has reported a mark ``count`` times; return whether it did before its end."""
        while self.received.count(mark) < count:
            if not self._receive(None):
                return False
        return True

    def wait_until(self, seconds: float) -> bool:
        """Wait until this many seconds after the start; return whether the child is still running."""
        while (left := self.started + seconds - time.monotonic()) > 0:
            if not self._receive(left):
                return False
        return True

    def age(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.started

    def send(self, number: int) -> None:
        """Send a signal to the process group of the child."""
        os.killpg(self.pid, number)

    def end(self) -> int:
        """Wait for the end of the child and return its exit code, negative for a signal that ended it."""
        if self.exit_code is None:
            while self._receive(None):
                pass
            self.exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self.seconds = time.monotonic() - self.started
            os.close(self.pipe)
        return self.exit_code

    def kill(self) -> int:
        """Kill the child with SIGKILL and return its exit code: 0 if it had ended before."""
        self.send(signal.SIGKILL)
        return self.end()

    @property
    def steps(self) -> int:
        """Optimizer steps that the child has reported so far."""
        return self.received.count(STEP)

    def _receive(self, timeout: float | None) -> bool:
        """Read from the pipe; return whether the child may still report something."""
        if not select.select([self.pipe], [], [], timeout)[0]:
            return True
        new = os.read(self.pipe, 65536)
        self.received += new
        return bool(new)


_NEEDED = (
    *("lightning.pytorch.loggers", "peft", "torch.utils.tensorboard", "transformers.models.llama.modeling_llama"),
    *("guardreasoner.cli.lightning_cli", "guardreasoner.cli.main", "guardreasoner.generators.local"),
    *("guardreasoner.training.hsdpo", "guardreasoner.training.rsft"),
)


def preload() -> None:
    """Import what a run needs, with one thread in each library."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for name in _NEEDED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def start(
    argv: Sequence[str],
    folder: Path,
    prepare: Callable[[Report], None] = nothing,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Run a command in a child.

    Args:
        argv: Verb and flags.
        folder: Working folder of the child; its output is appended to ``FOLDER.log``.
        prepare: Called in the child before the command.
        environment: Variables to set in the child.
    """
    log = folder.with_name(f"{folder.name}.log")
    pipe, report_end = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(report_end)
        child = Child(pid, pipe, log)
        child.wait_for(_READY, 1)
        return child
    code = 70
    try:
        end_with_parent()
        os.setsid()
        os.close(pipe)
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        os.environ.update(environment or {})
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        tempfile.tempdir = None  # chosen anew from the environment
        _forget_exit_handlers()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        code = _run(list(argv), prepare, lambda mark: os.write(report_end, mark))
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


_READY = b"r"


def _forget_exit_handlers() -> None:
    """Forget the exit handlers and temporary folders of the parent, which a child must not run or delete."""
    atexit._clear()
    weakref.finalize._registry.clear()
    atexit.register(weakref.finalize._exitfunc)


def _run(argv: list[str], prepare: Callable[[Report], None], report: Report) -> int:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from guardreasoner.cli.main import main

    report(_READY)
    register_optimizer_step_post_hook(lambda *_: report(STEP))
    sys.argv = ["guardreasoner", *argv]
    prepare(report)
    try:
        return main(argv)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1


def end_with_parent() -> None:
    """Make Linux kill this process when its parent ends, so that a killed campaign leaves no run behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_PR_SET_PDEATHSIG = 1


def last_line(log: Path) -> str:
    """Return the last line of a log that starts with "error:", or else its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["(no output)"])[-1]
