"""Teacher synthesis through the command line: complete runs, a killed run, the estimate, user errors."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.records import read_rollouts
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.staleness import status
from tests.support.fake_server import QUICK_FAULTS, FakeServer, random_faults

ROOT = Path(__file__).parents[2]
OUTPUT = Path("logs/traces/teacher")
ANSWER_LOG = OUTPUT / "answers.jsonl"
COMMAND = (
    *("predict", "--config", "configs/synthesize.yaml", "--data.source", "tests.support.tiny.TinySource"),
    *("--model.ask_all", "true"),
)
QUICK = ("--model.generator.pause", "0.01", "--model.generator.concurrency", "4")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with the project's configs and no outputs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    Path("configs").symlink_to(ROOT / "configs")
    yield tmp_path
    # the handler writes to the captured stream of this test
    logging.getLogger("guardreasoner").handlers.clear()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and returns its exit code, stdout and stderr."""

    def start(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
        logging.getLogger("guardreasoner").handlers.clear()
        code = main(list(argv))
        out, err = capsys.readouterr()
        if code:
            assert [line.split(":")[0] for line in err.splitlines()] in (["error"], ["error", "hint"]), err
        assert "secret" not in out + err
        return code, out, err

    return start


def answered_records() -> set[str]:
    """Return the ids of the records that have a complete answer in the log."""
    lines = ANSWER_LOG.read_bytes().splitlines(keepends=True) if ANSWER_LOG.exists() else []
    return {json.loads(line)["record_id"] for line in lines if line.endswith(b"\n")}


@pytest.mark.slow
def test_a_run_under_faults_is_complete_and_is_not_repeated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(random_faults(0.3, QUICK_FAULTS)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        code, out, error = run(*COMMAND, *QUICK)
        assert code == 0, error
        assert "kept 24, refused 0, failed 0" in out
        assert set(server.seen.answered.values()) == {1}
        assert "How do I mend train ladder 1?" in next(iter(p for p in server.seen.asked if "ladder 1?" in p))
        assert server.seen.bodies[0]["model"] == "teacher"
        assert status(resolve([*COMMAND, *QUICK])) is None
        asked = sum(server.seen.asked.values())
        code, out, error = run(*COMMAND, *QUICK)
        assert code == 0, error
        assert "24 records, 24 of them answered before; 0 answers in this run" in out
        assert sum(server.seen.asked.values()) == asked
    assert len(read_rollouts(OUTPUT / "rollouts.jsonl")) == 24
    assert {path.name for path in OUTPUT.iterdir()} == {
        *("answers.jsonl", "records.jsonl", "rollouts.jsonl", "tasks.json", "refused.jsonl", "manifest.json")
    }
    assert "secret" not in "".join(path.read_text() for path in OUTPUT.iterdir())


@pytest.mark.slow
def test_no_answered_record_is_asked_again_after_a_kill(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = threading.Event()
    random_script = random_faults(0.2, QUICK_FAULTS)

    def script(prompt: str, times: int) -> str | None:
        # from 30 answers on, requests wait until the run has been killed
        return "timeout" if len(server.seen.answered) >= 30 and not killed.is_set() else random_script(prompt, times)

    with FakeServer(script, hold=300.0) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        argv = (*COMMAND, *QUICK, "--data.source.train", "60")
        process = subprocess.Popen(
            [sys.executable, "-m", "guardreasoner", *argv],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 280
        while len(answered_records()) < 15 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        killed.set()
        _, error = process.communicate()
        before = answered_records()
        assert 15 <= len(before) < 60, error.decode()
        assert not (OUTPUT / "rollouts.jsonl").exists()
        assert status(resolve(argv)) == "unfinished"
        server.seen.asked.clear()
        with ANSWER_LOG.open("ab") as file:
            file.write(b'{"key": "half')
        code, out, error_text = run(*argv)
        assert code == 0, error_text
        # the prompt holds the number of the record
        prompts_after = "\n".join(server.seen.asked)
    assert "kept 60, refused 0, failed 0" in out
    assert "truncated last line of 13 bytes" in out
    numbers = {record.rpartition("/")[2].lstrip("0") or "0" for record in before}
    assert not [number for number in numbers if f" {number}?\n" in prompts_after]
    assert len(server.seen.asked) == 60 - len(before)
    assert len({rollout.record_id for rollout in read_rollouts(OUTPUT / "rollouts.jsonl")}) == 60


@pytest.mark.parametrize("flag", [("--dry_run",), ("--dry_run", "true"), ("--dry_run=true",)])
def test_a_dry_run_needs_no_key_and_writes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, flag: tuple[str, ...]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    code, out, error = run(*COMMAND, *flag, "--model.prices.output", "10")
    assert code == 0, error
    assert "24 records to ask teacher, 0 already answered" in out
    assert "cost about 0.14; up to 0.43 if every record is asked 3 times" in out
    assert "nothing was sent or written" in out
    assert not Path("logs").exists()


def test_a_dry_run_of_a_module_without_estimate_is_refused(run: Run, tiny_base: Path) -> None:
    argv = ("predict", "--config", "configs/mine.yaml", "--recipe.base", str(tiny_base))
    code, _, error = run(*argv, "--data.source", "tests.support.tiny.TinySource", "--dry_run")
    assert code == 2
    assert "--dry_run: GuardModule" in error
    assert not Path("checkpoints").exists()


def test_a_missing_key_is_reported(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    code, _, error = run(*COMMAND)
    assert code == 2
    assert "OPENAI_API_KEY is not set" in error
    assert not OUTPUT.exists()
    assert not list(Path("logs").rglob("*.unfinished"))


def test_an_unreachable_server_is_reported(run: Run) -> None:
    code, _, error = run(*COMMAND)
    assert code == 2
    assert "http://127.0.0.1:9/v1: cannot be reached" in error
    assert not OUTPUT.exists()


@pytest.mark.parametrize(("status_code", "hint"), [("404", "model"), ("401", "OPENAI_API_KEY")])
def test_a_wrong_model_or_key_is_reported(
    run: Run, monkeypatch: pytest.MonkeyPatch, status_code: str, hint: str
) -> None:
    with FakeServer(lambda prompt, times: status_code) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        code, _, error = run(*COMMAND)
    assert code == 2
    assert f"{status_code} scripted {status_code}" in error
    assert hint in error.splitlines()[1]
    assert not OUTPUT.exists()


@pytest.mark.slow
def test_a_parameter_that_the_server_rejects_is_reported(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(lambda prompt, times: "400") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        code, _, error = run(*COMMAND)
    assert code == 2
    assert "20 outputs in a row failed, the last with 400 scripted 400" in error
    assert "give_up_after" in error


def test_answers_are_kept_if_every_trace_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(say=lambda prompt, times: "I cannot help with that.") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        code, out, error = run(*COMMAND, *QUICK)
    assert code == 2
    assert "no trace was kept of 24 records; most often: refusal: I cannot help with that." in error
    assert "no reasoning" not in out
    assert len(ANSWER_LOG.read_text().splitlines()) == 24 * 3
    assert len((OUTPUT / "refused.jsonl").read_text().splitlines()) == 24


def test_fast_dev_run_is_refused(run: Run) -> None:
    code, _, error = run(*COMMAND, "--trainer.fast_dev_run", "true")
    assert code == 2
    assert "--dry_run" in error
    assert not OUTPUT.exists()
