"""Teacher synthesis against a real OpenAI-compatible server: ``transformers serve`` on a model of random weights."""

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
NEEDED = ("fastapi", "uvicorn")
TEMPLATE = "{{ prompt }}"  # short, as the model has 300 tokens and the server is a CPU

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in NEEDED),
    reason=f"transformers serve needs {' and '.join(NEEDED)}, which the dev extra installs",
)


@pytest.fixture
def chat_model(tiny_base: Path, tmp_path: Path) -> Path:
    """A two-layer Llama with a chat template, as hubs hold it."""
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
    words = ["serve", str(chat_model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as lines, subprocess.Popen([*program, *words], stdout=lines, stderr=lines) as process:
        try:
            deadline = time.monotonic() + 60
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_a_real_server_answers_and_every_random_trace_is_refused(
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
    words = ["predict", "--config", "configs/synthesize.yaml", "--data.source", "tests.support.tiny.TinySource"]
    words += ["--data.source.train", "6", "--model.ask_again", "1", "--model.template", TEMPLATE]
    words += ["--model.generator.max_tokens", "16", "--model.generator.concurrency", "2"]
    monkeypatch.setattr(sys, "argv", ["guardreasoner", *words])
    code = main(words)
    said = capsys.readouterr()
    assert code == 2, said.out + said.err
    assert "no trace was kept of 6 records" in said.err
    assert [line.split(":")[0] for line in said.err.splitlines()] == ["error", "hint"]
    assert "kept 0, refused 6, failed 0" in said.out
    rows = [json.loads(line) for line in Path("logs/traces/teacher/answers.jsonl").read_text().splitlines()]
    assert sorted((row["record_id"], row["attempt"]) for row in rows) == [
        (f"train/{number:02d}", attempt) for number in range(6) for attempt in range(2)
    ]
    for row in rows:
        assert "no verdict on request" in row["faults"]
        assert row["prompt_tokens"] > 0
        assert 0 < row["completion_tokens"] <= 16
    assert any(row["text"] for row in rows)
