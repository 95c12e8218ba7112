"""Runs a measurement in a separate process, which reads a job (a dataclass) and writes a dictionary."""

import ctypes.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

Kind = TypeVar("Kind")


class MeasurementFailed(Exception):
    """A measurement failed; the message is the last line of the process's stderr that is no hint.

    Args:
        message: The message.
        partial: What the process had written before it failed.
    """

    def __init__(self, message: str, partial: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.partial = partial or {}


def run(job: Any, allocator: dict[str, str], seconds: float | None = None) -> dict[str, Any]:
    """Run a job in a separate process and return its measurements.

    Args:
        job: A dataclass with ``threads`` and the ``module`` to run, which reads it with :func:`read_job`.
        allocator: Environment variables of the memory allocator, the same for all compared processes.
        seconds: Time limit, after which the process and those that it started are killed; None for no limit.

    Raises:
        MeasurementFailed: The process failed or took too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        job_path, result_path = Path(folder, "job.json"), Path(folder, "result.json")
        job_path.write_text(json.dumps(asdict(job)))
        threads = str(job.threads)
        environment = {
            **os.environ,
            **allocator,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(Path(folder, "datasets")),  # do not reuse reference values of an earlier run
        }
        here = Path(__file__).parents[1]
        argv = [sys.executable, "-m", job.module, str(job_path), str(result_path)]
        code, stderr = _run(argv, here, environment, seconds)
        result = json.loads(result_path.read_text()) if result_path.is_file() else {}
        if code is None:
            raise MeasurementFailed(f"took more than {seconds:.0f} s", result)
        if code or not result:
            raise MeasurementFailed(last_message(stderr) or f"exit status {code}", result)
        return result


def last_message(stderr: str) -> str:
    """Return the last line of what a process wrote that is no hint; empty if there is none."""
    lines = [line for line in stderr.strip().splitlines() if line.strip() and not line.startswith("hint: ")]
    return lines[-1] if lines else ""


def _run(argv: list[str], cwd: Path, environment: dict[str, str], seconds: float | None) -> tuple[int | None, str]:
    """Run a process in a session of its own; return exit code and stderr, None as code if it took too long."""
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stderr = process.communicate(timeout=seconds)[1]
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        stderr = process.communicate()[1]
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return None, stderr
    return process.returncode, stderr


def read_job(kind: type[Kind]) -> tuple[Kind, Path]:
    """Return, in the measuring process, the job and the path for its result."""
    return kind(**json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2])


def allocator_settings(choice: str) -> dict[str, str]:
    """Return the environment variables of the memory allocator.

    Args:
        choice: "auto" for tcmalloc or jemalloc if installed, else "glibc"; "glibc" for keeping freed memory instead of
            returning it to the system at each step; "system" for no change.
    """
    if choice == "system" or not sys.platform.startswith("linux"):
        return {}
    for name in ("tcmalloc", "tcmalloc_minimal", "jemalloc") if choice == "auto" else ():
        if library := ctypes.util.find_library(name):
            return {"LD_PRELOAD": library}
    return {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26)}
