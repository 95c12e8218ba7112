"""Fork server: imports the modules that stages need, computes nothing, and forks once for each stage.

    python -m guardreasoner.cli.fork_server DESCRIPTOR

For each line of the socket, a list of verb and flags as JSON, it writes two lines: the process id of the fork that runs
them, and, when that has ended, its exit code, negative after a signal. It ends with the process that started it.

A fork has the environment, the working folder and the standard streams of that process, and as many threads as torch
reads from the environment. No pool of threads exists when it is made: torch and OpenMP make theirs at the first
operation that uses one, and the OpenBLAS of numpy and scipy ends its own before a fork.
"""

import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from guardreasoner.workflow import stop_signals

_NEEDED = (
    "guardreasoner.cli.lightning_cli",
    "guardreasoner.cli.commands.base_model",
    "guardreasoner.evaluation.benchmark_data",
    "guardreasoner.generators.reserved_cache",
    "guardreasoner.training.preference_data",
    "guardreasoner.training.reasoning_data",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "transformers.tokenization_utils_tokenizers",
)
"""Modules that almost every stage imports."""


def run_server() -> int:
    """Serve until the socket is closed; in a fork, run the stage."""
    # A terminal signals all processes of a run; the forks answer, and this process waits for them.
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    stop_signals.end_with_parent(signal.SIGKILL)
    connection = socket.socket(fileno=int(sys.argv[1]))
    _import()
    argv = _serve(connection)
    if argv is None:
        os._exit(0)  # nothing was computed, so there is nothing to take down
    for number, handler in former.items():
        signal.signal(number, handler)
    return _run(argv)


def _import() -> None:
    """Import what stages need; what is missing is reported by the stage that needs it."""
    from guardreasoner.cli.deferred_imports import defer_imports

    defer_imports()
    gc.disable()
    for name in _NEEDED:
        try:
            import_module(name)
        except ImportError:
            continue
    gc.freeze()  # pages that the garbage collector does not write stay shared
    gc.enable()


def _serve(connection: socket.socket) -> list[str] | None:
    """Fork for each request. Return in a fork, with its verb and flags, and at the end, with None."""
    with connection, connection.makefile("rb") as requests:
        for line in requests:
            if not _may_fork():
                return None
            if (pid := os.fork()) == 0:
                return [str(word) for word in json.loads(line)]
            connection.sendall(b"%d\n" % pid)
            _, status = os.waitpid(pid, 0)
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    return None


def _may_fork() -> bool:
    """Return whether a fork can use what this process holds: no other Python thread, no GPU."""
    torch = sys.modules.get("torch")
    return threading.active_count() == 1 and not (torch and torch.cuda.is_initialized())


def _run(argv: Sequence[str]) -> int:
    """Run a stage as ``python -m guardreasoner`` does."""
    from guardreasoner.cli.main import main

    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # not the state of all other forks
    module = find_spec("guardreasoner.__main__")
    sys.modules["__main__"].__spec__ = module  # what Lightning starts again on further devices
    sys.argv = [str(module and module.origin), *argv]
    return main()


if __name__ == "__main__":
    sys.exit(run_server())
