"""A fit with GRPO that is killed with SIGKILL and started again ends as one that was not."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.event_files import scalars
from tests.support.kill_once import ROOT, Started
from tests.support.tiny import command

pytestmark = pytest.mark.slow

STEPS = 8


def test_a_killed_fit_samples_what_it_would_have_sampled(
    both_speeds: Path, tiny_rollouts: Path, tmp_path: Path
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    logger = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "logs"}}
    argv = command(
        *("grpo", both_speeds, "--data.rollouts", f"[{tiny_rollouts}]", "--data.batch_size", "4"),
        *("--data.epochs", "2", "--model.k", "4", "--recipe.max_new_tokens", "60", "--recipe.grpo_lr", "1.0e-3"),
        *("--checkpoint_every", "2", "--trainer.logger", json.dumps(logger)),
    )
    whole = Started([*argv, "--output", "whole"], tmp_path).end()
    assert whole.code == 0, whole.err
    killed = Started([*argv, "--output", "killed"], tmp_path)
    killed.wait_until(lambda: any((tmp_path / ".killed.fit").glob("step-*4.ckpt")))
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.end().code == -signal.SIGKILL
    resumed = Started([*argv, "--output", "killed"], tmp_path).end()
    assert resumed.code == 0, resumed.err
    assert "continuing an unfinished fit" in resumed.err + resumed.out
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    curves = []
    for name in ("whole", "killed"):
        (folder,) = (tmp_path / "logs" / "fit" / name).glob("version_*")
        curves.append([row for row in scalars(folder) if row[0].startswith("train/")])
    assert curves[0] == curves[1]
    assert len([row for row in curves[0] if row[0] == "train/generated_tokens"]) == STEPS
