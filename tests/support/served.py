"""A guard behind HTTP as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

JSON = {"content-type": "application/json"}
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


def ask(port: int, text: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """Return status and body of the answer to a text."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/v1/guard", json.dumps({"prompt": text, **more}), JSON)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
