"""A fit whose model or checkpoints do not fit on the disk is refused before its first step."""

from collections import namedtuple
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from guardreasoner.callbacks import FitCheckpoints, FreeSpace, Interval
from guardreasoner.errors import InputError
from guardreasoner.model.backbone import LoRA
from guardreasoner.training.rsft import RSFTModule
from guardreasoner.workflow.config import Command
from guardreasoner.workflow.staleness import StageState
from guardreasoner.workflow.unfinished_fit import UnfinishedFit
from tests.support.tiny import load, quiet_trainer

NO_CONFIG = StageState(Command(("fit",), {}), "", {}, {})
Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("lora", [None, LoRA(r=2, alpha=4)])
@pytest.mark.parametrize(
    ("with_optimizer", "checkpoints", "own"), [(False, False, False), (True, False, True), (True, True, False)]
)
def test_the_free_space_must_hold_model_and_checkpoints(
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lora: LoRA | None,
    with_optimizer: bool,
    checkpoints: bool,
    own: bool,
) -> None:
    module = RSFTModule(load(tiny_base, lora=lora), torch.optim.AdamW)
    trained = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    # weights and two moments, float32; the best checkpoint or the last two, and the next one while it is written
    needed = trained * 4 + trained * 8 * with_optimizer + 2 * trained * 12 * checkpoints + 3 * trained * 12 * own
    callbacks: list[Callback] = [ModelCheckpoint(tmp_path / "kept")] if checkpoints else []
    if own:
        callbacks.append(FitCheckpoints(UnfinishedFit(tmp_path / "made" / "model", NO_CONFIG), Interval(steps=1)))
    trainer = quiet_trainer(callbacks=callbacks, enable_checkpointing=checkpoints, default_root_dir=tmp_path)
    check = FreeSpace(str(tmp_path / "made" / "model"), with_optimizer)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1, 1, needed))
    check.on_fit_start(trainer, module)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1, 1, needed - 1))
    with pytest.raises(InputError, match=r"made/model: model and checkpoints need .* MiB, .* has .* MiB of free space"):
        check.on_fit_start(trainer, module)
