"""A fit whose model or checkpoints do not fit on the disk is refused before its first step."""

from collections import namedtuple
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from guardreasoner.callbacks import FreeSpace
from guardreasoner.errors import InputError
from guardreasoner.model.backbone import LoRA
from guardreasoner.training.rsft import RSFTModule
from tests.support.tiny import load, quiet_trainer

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("lora", [None, LoRA(r=2, alpha=4)])
@pytest.mark.parametrize(("with_optimizer", "checkpoints"), [(False, False), (True, False), (True, True)])
def test_the_free_space_must_hold_model_and_checkpoints(
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lora: LoRA | None,
    with_optimizer: bool,
    checkpoints: bool,
) -> None:
    module = RSFTModule(load(tiny_base, lora=lora), torch.optim.AdamW)
    trained = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    # weights and two moments, float32; the best checkpoint, and the next one while it is written
    needed = trained * 4 + trained * 8 * with_optimizer + 2 * trained * 12 * checkpoints
    callbacks = [ModelCheckpoint(tmp_path / "kept")] if checkpoints else []
    trainer = quiet_trainer(callbacks=callbacks, enable_checkpointing=checkpoints, default_root_dir=tmp_path)
    check = FreeSpace(str(tmp_path / "made" / "model"), with_optimizer)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1, 1, needed))
    check.on_fit_start(trainer, module)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1, 1, needed - 1))
    with pytest.raises(InputError, match=r"made/model: model and checkpoints need .* MiB, .* has .* MiB of free space"):
        check.on_fit_start(trainer, module)
