"""A measurement in a process of its own: it is told a dataclass, and gives back a dictionary."""

import ctypes.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

Kind = TypeVar("Kind")


class Failed(Exception):
    """A measurement that came to no end; its message is the last line that the process wrote."""


def run(job: Any, allocator: dict[str, str]) -> dict[str, Any]:
    """Run a job in a process of its own and return what it measured.

    Args:
        job: a dataclass; its ``module`` is run and reads it (:func:`told`), on its number of ``threads``.
        allocator: environment variables, the same for every process that is compared.

    Raises:
        Failed: the process ended with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        told, found = Path(folder, "job.json"), Path(folder, "found.json")
        told.write_text(json.dumps(asdict(job)))
        threads = str(job.threads)
        environment = {
            **os.environ,
            **allocator,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(Path(folder, "datasets")),  # no reference values of an earlier run
        }
        here = Path(__file__).parents[1]
        words = [sys.executable, "-m", job.module, str(told), str(found)]
        done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True)
        if done.returncode or not found.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise Failed(lines[-1])
        return json.loads(found.read_text())


def told(kind: type[Kind]) -> tuple[Kind, Path]:
    """Return, in the process that was started, its job and where its result goes."""
    return kind(**json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2])


def allocator_settings(choice: str) -> dict[str, str]:
    """Return the environment of the allocator, for both sides alike.

    Args:
        choice: "auto" is tcmalloc or jemalloc where one is installed, else "glibc"; "glibc" keeps freed memory instead
            of giving it back to the system at each step; "system" changes nothing.
    """
    if choice == "system" or not sys.platform.startswith("linux"):
        return {}
    for name in ("tcmalloc", "tcmalloc_minimal", "jemalloc") if choice == "auto" else ():
        if library := ctypes.util.find_library(name):
            return {"LD_PRELOAD": library}
    return {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26)}
