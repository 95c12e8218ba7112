"""The review server as a process of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

ROOT = Path(__file__).parents[2]
_OPENER = build_opener(ProxyHandler({}))


class Serving:
    """The command ``review`` in a process; as a context manager, it kills the process at the end.

    Args:
        folder: working directory of the process.
        argv: arguments of the command.
    """

    def __init__(self, folder: Path, argv: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "guardreasoner", "review", *argv],
            **{"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.lines: list[str] = []
        self.address = ""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if match := re.match(r"http://127\.0\.0\.1:\d+/", line):
                self.address = match[0]
                break
        else:
            raise AssertionError(self.process.communicate()[1])
        self.token = re.findall(r'name="token" value="([^"]+)"', self.get())[0]

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def get(self, query: str = "") -> str:
        """Return the page."""
        with _OPENER.open(self.address + query, timeout=20) as response:
            return str(response.read().decode())

    def post(self, path: str, **fields: str) -> None:
        """Send a form and wait for the acknowledgement."""
        body = urlencode({"token": self.token, **fields}).encode()
        with _OPENER.open(
            Request(self.address + path, body, {"origin": self.address.rstrip("/")}), timeout=20
        ) as response:
            assert response.status == 200

    def end(self, signal_number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal; return the exit code, the rest of stdout, and stderr."""
        self.process.send_signal(signal_number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err
