"""A guard behind HTTP as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@contextmanager
def served(
    *argv: str, log: Any = subprocess.DEVNULL, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a server, and yield its process and port once it listens; its log goes to a file."""
    process = subprocess.Popen(
        [sys.executable, "-m", *argv],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield process, int(line.partition(" (")[0].rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()
