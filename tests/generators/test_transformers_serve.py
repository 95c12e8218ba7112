"""Teacher synthesis against a real OpenAI-compatible server: ``transformers serve`` with random weights."""

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardreasoner.cli.main import main

ROOT = Path(__file__).parents[2]
REQUIRED = ("fastapi", "uvicorn")
TEMPLATE = "{{ prompt }}"  # short, because the vocabulary has 300 tokens and the server runs on a CPU

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in REQUIRED),
        reason=f"transformers serve needs {' and '.join(REQUIRED)}, which the dev extra installs",
    ),
]


@pytest.fixture
def chat_model(tiny_base: Path, tmp_path: Path) -> Path:
    """A two-layer Llama with a chat template, in the form of a hub repository."""
    folder = Path(shutil.copytree(tiny_base, tmp_path / "chat"))
    (folder / "guard.json").unlink()
    template = "{{ bos_token }}{% for m in messages %}user: {{ m['content'] }}\n{% endfor %}assistant: "
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture
def base_url(chat_model: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a running server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "server.log"
    program = [sys.executable, "-c", "from transformers.cli.transformers import main; main()"]
    argv = ["serve", str(chat_model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as lines, subprocess.Popen([*program, *argv], stdout=lines, stderr=lines) as process:
        try:
            deadline = time.monotonic() + 300
            while not is_healthy(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_answers_of_a_real_server_are_logged_and_refused(
    base_url: str,
    chat_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    monkeypatch.setenv("OPENAI_MODEL", str(chat_model))
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    Path("configs").symlink_to(ROOT / "configs")
    argv = ["predict", "--config", "configs/synthesize.yaml", "--data.source", "tests.support.tiny.TinySource"]
    argv += ["--model.ask_all", "true"]
    argv += ["--data.source.train", "6", "--model.ask_again", "1", "--model.template", TEMPLATE]
    argv += ["--model.generator.max_tokens", "16", "--model.generator.concurrency", "2"]
    monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
    code = main(argv)
    printed = capsys.readouterr()
    assert code == 2, printed.out + printed.err
    assert "no trace was kept of 6 records" in printed.err
    assert [line.split(":")[0] for line in printed.err.splitlines()] == ["error", "hint"]
    assert "kept 0, refused 6, failed 0" in printed.out
    rows = [json.loads(line) for line in Path("logs/traces/teacher/answers.jsonl").read_text().splitlines()]
    assert sorted((row["record_id"], row["attempt"]) for row in rows) == [
        (f"train/{number:02d}", attempt) for number in range(6) for attempt in range(2)
    ]
    for row in rows:
        assert "no verdict on request" in row["faults"]
        assert row["prompt_tokens"] > 0
        assert 0 < row["completion_tokens"] <= 16
    assert any(row["text"] for row in rows)
