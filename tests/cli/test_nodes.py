"""Two nodes as torchrun starts them, here two processes of one machine: no shared folder, and a node that dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guardreasoner.records import write_jsonl
from tests.support.tiny import TinySource

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def nodes(folders: list[Path], base: Path, *more: str) -> list["subprocess.Popen[str]"]:
    """Start one process per node, each in its own working folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = ["fit", "--config", "rsft", "--auto_build", "false", "--model.backbone.path", str(base)]
    files = {}
    for split in ("train", "validation"):
        files[split] = str(folders[0].parent / f"{split}.jsonl")
        write_jsonl(Path(files[split]), TinySource().records(split))  # type: ignore[arg-type]
    source = {"class_path": "guardreasoner.sources.files.Files", "init_args": files}
    argv += ["--data.source", json.dumps(source), "--trainer.logger", "false", "--trainer.strategy", "ddp"]
    argv += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.num_nodes", "2", *more]
    torchrun = {"TORCHELASTIC_RUN_ID": "tests", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    torchrun |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = []
    for rank, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "guardreasoner", *argv],
                env={**os.environ, **torchrun, "RANK": str(rank), "GROUP_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
            )
        )
    return started


def ends(processes: list["subprocess.Popen[str]"]) -> list[tuple[int, str]]:
    """Return exit code and standard error of each process."""
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


def test_nodes_without_a_shared_folder_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    for code, error in ends(nodes([tmp_path / "one", tmp_path / "two"], tiny_base)):
        assert code == 2, error
        assert "output: checkpoints/rsft: node 1 does not see the files of node 0" in error
        assert "Traceback" not in error
    assert not (tmp_path / "one" / "checkpoints" / "rsft").exists()


def test_a_lost_node_ends_the_run_in_one_line(tiny_base: Path, tmp_path: Path) -> None:
    first, second = nodes([tmp_path / "shared"] * 2, tiny_base, "--data.epochs", "100000", "--checkpoint_every", "5")
    end = time.monotonic() + 240
    while not list(tmp_path.glob("shared/checkpoints/.rsft.fit/step-*.ckpt")):
        assert time.monotonic() < end, "no checkpoint was written"
        assert first.poll() is None, first.communicate()[1][-3000:]
        time.sleep(0.5)
    second.send_signal(signal.SIGKILL)
    (code, error), _ = ends([first, second])
    assert code == 1, error
    assert "error: another process of this run has ended" in error
    assert "Traceback" not in error
    assert list(tmp_path.glob("shared/checkpoints/.rsft.fit/step-*.ckpt"))
