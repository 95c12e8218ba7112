"""A server that repeats the key in its errors, answers and headers makes it appear nowhere."""

import base64
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from guardreasoner.cli.main import main
from tests.support.fake_server import FakeServer

KEY = "sk-canary+7f3a91c05d/2e86b4"
PASSWORD = "pw-canary-19c4e7d2a805"
FORMS = {KEY, PASSWORD, quote(KEY, safe=""), base64.b64encode(f"me:{PASSWORD}".encode()).decode()}
ROOT = Path(__file__).parents[2]


def synthesis(server: FakeServer, *more: str) -> list[str]:
    """Return a synthesis whose address holds a login, and whose key is in a variable of any name."""
    address = server.base_url.replace("http://", f"http://me:{PASSWORD}@")
    options = ["--model.generator.base_url", f"{address}?api_key={quote(KEY, safe='')}"] if "login" in more else []
    return [
        *("predict", "--config", "configs/synthesize.yaml", "--auto_build", "false", "--output", "traces"),
        *("--data.source", "tests.support.tiny.TinySource", "--model.generator.key_variable", "MY_SERVER"),
        *("--model.generator.base_url", address, "--model.generator.attempts", "2", "--model.generator.pause", "0.01"),
        *("--model.ask_all", "true", "--model.ask_again", "0", *options, *(word for word in more if word != "login")),
    ]


def require_no_key(folder: Path, *shown: str) -> None:
    """Require that no form of the secrets is in what was shown, or in a file or file name below a folder."""
    for form in FORMS:
        assert not [text for text in shown if form in text]
        assert not [str(path) for path in folder.rglob("*") if form in str(path)]
        files = [path for path in folder.rglob("*") if path.is_file() and "configs" not in path.parts]
        assert not [str(path) for path in files if form.encode() in path.read_bytes()]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER", KEY)
    monkeypatch.setattr("guardreasoner.workflow.redaction._remembered", set())


def test_a_run_whose_server_repeats_the_key(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = iter([None, "400", "422", "500", "429", None])
    with FakeServer(lambda prompt, times: next(scripts, None), echo=True) as server:
        argv = synthesis(server)
        monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
        assert main(argv) == 0
        assert server.seen.faults
    shown = capsys.readouterr()
    answers = Path("traces/answers.jsonl").read_text().splitlines()
    assert "You sent" in json.loads(answers[0])["text"]
    assert "you sent" in Path("traces/refused.jsonl").read_text()
    main(["lineage", "traces"])
    main(["report", "traces", "--out", "page.html"])
    more = capsys.readouterr()
    require_no_key(workplace, shown.out, shown.err, more.out, more.err)


@pytest.mark.parametrize("fault", ["401", "404", "402", "400"])
def test_a_run_that_ends_with_an_error(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    with FakeServer(lambda prompt, times: fault, echo=True) as server:
        argv = synthesis(server, "--model.generator.give_up_after", "2")
        monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
        assert main(argv) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: http://")
    require_no_key(workplace, shown.out, shown.err)


def test_addresses_that_cannot_be_reached(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer() as server:
        pass
    assert main(synthesis(server, "login")) == 2
    shown = capsys.readouterr()
    assert "cannot be reached" in shown.err
    require_no_key(workplace, shown.out, shown.err)


@pytest.mark.slow
def test_a_crash(workplace: Path) -> None:
    """The traceback of a fault in the program does not show the key either, and neither does the saved config."""
    (workplace / "crashing.py").write_text(
        "import os\nfrom guardreasoner.generators.server import ServerGenerator\n"
        "class Crashing(ServerGenerator):\n"
        "    def ask(self, next_request):\n"
        "        raise ZeroDivisionError(self.server.base_url + os.environ['MY_SERVER'])\n"
    )
    with FakeServer() as server:
        logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "csv"}}
        argv = synthesis(server, "--model.generator", "crashing.Crashing", "--trainer.logger", json.dumps(logger))
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{workplace}"}
        done = subprocess.run(
            [sys.executable, "-m", "guardreasoner", *argv], capture_output=True, text=True, env=environment
        )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert list(Path("csv").rglob("config.yaml"))
    require_no_key(workplace, done.stdout, done.stderr)
    logging.getLogger("guardreasoner").handlers.clear()
