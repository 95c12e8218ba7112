"""Stages that are forks of a process with all imports, through the real command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardreasoner.workflow.stage_process import LAUNCHER, StageRunner

ROOT = Path(__file__).parents[2]
PLAIN = (sys.executable, "-B", "-m", "guardreasoner")
"""Another launcher than the default one, whose stages are new processes."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, stages are new processes")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the configs."""
    (tmp_path / "configs").mkdir()
    for path in (ROOT / "configs").iterdir():
        (tmp_path / "configs" / path.name).symlink_to(path)
    (tmp_path / "configs/pipeline.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def write_pipeline(file: str = "configs/pipeline.yaml", **stages: str) -> None:
    Path(file).write_text(json.dumps({"stages": stages}))


def base_model(name: str, heads: int = 2) -> str:
    """Return the command line of a small stage."""
    Path(f"{name}.yaml").write_text(f"{{vocabulary: 300, hidden_size: 16, intermediate_size: 16, heads: {heads}}}")
    return f"base-model --config configs/base.yaml --config {name}.yaml --output made/{name}"


def run(*argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*LAUNCHER, "run", *argv], capture_output=True, text=True, timeout=300)


def files(output: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(output).iterdir() if path.name != "manifest.json"}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_forks_write_what_new_processes_write(folder: Path) -> None:
    write_pipeline(one=base_model("one"), two=base_model("two"))
    done = run()
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("made/")] == [
        f"made/{name}: 0.01 M parameters, vocabulary 300, from 2,400 records" for name in ("one", "two")
    ]
    with StageRunner(PLAIN) as runner:
        assert runner.run(base_model("plain").split()) == 0
    assert files("made/one") == files("made/two") == files("made/plain")
    assert not list(Path("made").glob(".*"))


@pytest.mark.slow
def test_a_user_error_in_a_fork_is_two_lines_and_its_exit_code(folder: Path) -> None:
    write_pipeline(one=base_model("one", heads=3))
    done = run()
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: stage one failed with exit code 2: ")


def test_a_stage_that_cannot_be_forked_is_a_new_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = (sys.executable, "-c", "")
    monkeypatch.setattr("guardreasoner.workflow.stage_process._SERVER", nothing)
    with StageRunner() as runner:
        assert runner.run(["--version"]) == 0
        assert runner.run(["fti"]) == 2


class Running:
    """``run`` with a long stage, in a process group of its own."""

    def __init__(self, base: Path) -> None:
        fit = f"fit --config configs/rsft.yaml --model.backbone.path {base} --data.epochs 900 --data.skip_too_long true"
        write_pipeline(long=f"{fit} --checkpoint_every 2 --output made/long")
        with Path("log").open("w") as log:
            self.command = subprocess.Popen([*LAUNCHER, "run"], stdout=log, stderr=log, start_new_session=True)

    def wait_for_the_stage(self) -> None:
        lock = Path("made/.long.lock")
        wait_for(lambda: (lock.exists() and lock.read_text()) or self.command.poll() is not None)
        assert self.command.poll() is None, Path("log").read_text()
        self.stage = int(json.loads(lock.read_text())["process"])
        (self.server,) = children(self.command.pid)
        assert children(self.server) == [self.stage]

    def wait_for_a_checkpoint(self) -> None:
        wait_for(lambda: list(Path("made").rglob("*.ckpt")) or not is_alive(self.stage))
        assert is_alive(self.stage)

    def end(self) -> tuple[int, str]:
        """Wait until the command has ended, and check that nothing is left of it; return exit code and output."""
        code = self.command.wait(timeout=240)
        wait_for(lambda: not is_alive(self.server) and not is_alive(self.stage))
        return code, Path("log").read_text()


@pytest.fixture
def running(folder: Path, tiny_base: Path) -> Iterator[Running]:
    """A command whose stage is at work."""
    started = Running(tiny_base)
    try:
        started.wait_for_the_stage()
        yield started
    finally:
        if started.command.poll() is None:
            os.killpg(started.command.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_fork_which_saves_its_work(number: signal.Signals, running: Running) -> None:
    running.wait_for_a_checkpoint()
    running.command.send_signal(number)
    code, text = running.end()
    assert code == 128 + number
    assert f"stopped by {number.name}: " in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_a_signal_to_the_whole_group_counts_once(running: Running) -> None:
    running.wait_for_a_checkpoint()
    os.killpg(running.command.pid, signal.SIGTERM)
    code, text = running.end()
    assert code == 143
    assert "Traceback" not in text


def test_a_killed_stage_is_reported(running: Running) -> None:
    os.kill(running.stage, signal.SIGKILL)
    code, text = running.end()
    assert code == 137
    assert "error: stage long failed with exit code 137: " in text


@pytest.mark.slow
def test_a_killed_server_ends_the_stage(running: Running) -> None:
    os.kill(running.server, signal.SIGKILL)
    code, text = running.end()
    assert code == 137
    assert "error: stage long failed with exit code 137: " in text


@pytest.mark.slow
def test_a_killed_command_leaves_no_process(running: Running) -> None:
    running.wait_for_a_checkpoint()
    running.command.kill()
    code, text = running.end()
    assert code == -signal.SIGKILL
    assert "stopped by SIGTERM: " in text  # the stage, which has saved a checkpoint


@pytest.mark.slow
def test_two_commands_at_once_keep_out_of_each_others_way(folder: Path, running: Running) -> None:
    other = {"one": base_model("one"), "long": "base-model --config configs/base.yaml --output made/long"}
    write_pipeline("configs/other.yaml", **other)
    done = run("--config", "configs/other.yaml")
    assert done.returncode == 2
    assert "building made/one" in done.stdout
    assert Path("made/one/model.safetensors").exists()
    assert f"made/long: another run is writing here (process {running.stage} on " in done.stderr
    assert is_alive(running.stage)


@pytest.mark.slow
def test_a_plain_stage_ends_with_its_command_too(folder: Path, tiny_base: Path) -> None:
    fit = f"fit --config configs/rsft.yaml --model.backbone.path {tiny_base} --data.epochs 900 --output made/long"
    words = [*fit.split(), "--data.skip_too_long", "true"]
    program = "import sys; from guardreasoner.workflow.stage_process import StageRunner\n"
    program += f"with StageRunner({PLAIN!r}) as runner: runner.run({words!r})"
    write_pipeline(long=fit)
    command = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    lock = Path("made/.long.lock")
    wait_for(lambda: lock.exists() and lock.read_text())
    (stage,) = children(command.pid)
    command.kill()
    command.wait()
    wait_for(lambda: not is_alive(stage))
