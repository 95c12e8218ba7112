"""The real server, as a process of its own."""

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
    """``review`` in a process; use it as a context, at whose end the process is gone.

    Args:
        folder: where it runs.
        words: the command line behind the verb.
    """

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "guardreasoner", "review", *words],
            **{"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.said: list[str] = []
        self.address = ""
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if found := re.match(r"http://127\.0\.0\.1:\d+/", line):
                self.address = found[0]
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
        with _OPENER.open(self.address + query, timeout=20) as answer:
            return str(answer.read().decode())

    def post(self, path: str, **fields: str) -> None:
        """Send a form, and return when it is acknowledged."""
        body = urlencode({"token": self.token, **fields}).encode()
        with _OPENER.open(
            Request(self.address + path, body, {"origin": self.address.rstrip("/")}), timeout=20
        ) as answer:
            assert answer.status == 200

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        """Send a signal; return the exit code, and what was said to stdout since, and to stderr."""
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err
