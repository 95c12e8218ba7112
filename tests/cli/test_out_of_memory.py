"""A run that is out of memory ends in one line with the numbers of its plan."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from guardreasoner.cli.main import main
from guardreasoner.cli.out_of_memory import is_out_of_memory, out_of_memory


class Greedy(Callback):
    """Asks for more memory than any machine has."""

    def on_train_batch_start(self, *others: Any) -> None:
        """Allocate a petabyte."""
        torch.empty(2**50, dtype=torch.uint8)


@pytest.fixture
def flags(workplace: Path, tiny_base: Path) -> list[str]:
    """Flags of R-SFT of a tiny model on tiny data, in a folder with the project's configs."""
    path = ["--model.backbone.path", str(tiny_base), "--data.source", "tests.support.tiny.TinySource"]
    return ["--config", "configs/rsft.yaml", "--auto_build", "false", "--output", "out", *path]


@pytest.mark.slow
def test_a_fit_without_enough_memory_names_what_the_plan_needs(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["fit", *flags, "--trainer.accelerator", "cpu", "--trainer.callbacks+", f"{__name__}.Greedy"])
    lines = capsys.readouterr().err.splitlines()
    assert code == 1
    asked, plan = lines[-2].split("; ")[1:]
    assert lines[-2].startswith("error: out of memory: this machine has ")
    assert asked == f"the run asked for another {2**50} bytes"
    assert plan.startswith("plan: this fit needs 0.")
    assert lines[-1].startswith("hint: ")
    assert not Path("out").exists()


def test_a_gpu_that_is_too_small(flags: list[str]) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of …")
    fault = out_of_memory(error, ["fit", *flags])
    assert "GPU" in str(fault)
    assert "the run asked for another 2.50 GiB; plan: this fit needs 0.6 GB" in str(fault)


def test_other_verbs_have_no_plan() -> None:
    fault = out_of_memory(torch.OutOfMemoryError("CUDA out of memory."), ["predict", "--config", "configs/mine.yaml"])
    assert "plan" not in str(fault)
    assert "generation_batch_size" in str(fault.hint)


def test_other_errors_are_not_about_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes (2, 3) and (4,) do not match"))
    assert not is_out_of_memory(MemoryError())


@pytest.mark.parametrize("overlay", ["one_gpu", "ddp", "fsdp2"])
def test_overlays_of_the_trainer_are_planned(overlay: str, flags: list[str]) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of …")
    argv = ["fit", *flags, "--config", f"configs/trainer/{overlay}.yaml", "--trainer.devices", "2"]
    fault = out_of_memory(error, argv)
    assert "; plan: this fit needs 0.6 GB" in str(fault)
    assert "micro_batch_size" in str(fault.hint)
