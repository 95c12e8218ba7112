"""R-SFT sharded over two processes (configs/trainer/fsdp2.yaml) that torchrun starts on one machine without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from guardreasoner.cli.main import main
from tests.support.tiny import command

ROOT = Path(__file__).parents[2]
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "guardreasoner")
TWO = ("--trainer.devices", "2", "--trainer.strategy.init_args.compute_dtype", "null")
STEPS = 9  # 24 records, three epochs, eight records a step


def fit(base: Path, output: str, *overlays: str) -> list[str]:
    """Return the words of a fit that writes a checkpoint before every third step."""
    words = [output if word == "made" else word for word in command("rsft", base, "--checkpoint_every", "3")]
    return [*words[:3], *overlays, *words[3:]]


def sharded(base: Path) -> "subprocess.CompletedProcess[str]":
    """Run the fit on two processes; the second one is killed before the fifth step, the first time."""
    killed = {"class_path": "tests.support.killed_process.KilledProcess", "init_args": {"step": 4, "done": "killed"}}
    words = fit(base, "sharded", "--config", "trainer/fsdp2")
    return subprocess.run(
        [sys.executable, "-m", *TORCHRUN, *words, *TWO, "--trainer.callbacks", json.dumps([killed])],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
    )


@pytest.mark.slow
def test_a_sharded_fit_resumes_after_a_kill_and_ends_as_that_of_one_process(workplace: Path, tiny_base: Path) -> None:
    stopped = sharded(tiny_base)
    assert stopped.returncode == 1, stopped.stderr
    assert Path("killed").exists()
    assert not Path("sharded").exists()
    assert [path.name for path in Path(".sharded.fit").glob("step-*.ckpt")] == ["step-000000003.ckpt"]

    done = sharded(tiny_base)
    assert done.returncode == 0, done.stderr
    assert "continuing an unfinished fit from .sharded.fit/step-000000003.ckpt" in done.stdout
    assert f"written to sharded after {STEPS} steps" in done.stdout
    assert not Path(".sharded.fit").exists()

    assert main(fit(tiny_base, "whole")) == 0
    one, two = Path("whole"), Path("sharded")
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())
    start, expected, found = (load_file(folder / "model.safetensors") for folder in (tiny_base, one, two))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert max(float((expected[name] - start[name]).abs().max()) for name in expected) > 1e-2
