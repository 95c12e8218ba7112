"""A stage that TRL trains: the same update as ours, and what it refuses."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from evidence.trl_dpo import TRLDPO
from torch.optim import AdamW

from guardreasoner.errors import InputError
from guardreasoner.mining import Pairing
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reference import FrozenCopy
from tests.support.tiny import TinySource, load, quiet_trainer, weights

ROOT = Path(__file__).parents[2]
LEARNING_RATE = 1e-3


def data(rollouts: Path, gamma: float = 0.0) -> PreferenceDataModule:
    """Return 15 pairs in one step."""
    pairing = Pairing(gamma=gamma)
    return PreferenceDataModule(
        TinySource(), [str(rollouts)], pairing, batch_size=15, epochs=1, validation_share=0.0, micro_batch_size=5
    )


def test_the_overlay_repeats_the_arguments_of_hsdpo() -> None:
    ours, theirs = (
        yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))["model"]["init_args"]
        for path in ("configs/hsdpo.yaml", "benchmarks/evidence/overlays/trl_dpo.yaml")
    )
    assert theirs.pop("lr") == ours["optimizer"]["init_args"]["lr"]
    assert theirs == {name: ours[name] for name in ("backbone", "reference", "beta", "sft_coef")}
    assert ours.keys() - theirs.keys() == {"objective", "optimizer"}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed")
@pytest.mark.parametrize("sft_coef", [0.0, 2.0])
def test_one_step_on_all_pairs_is_that_of_hsdpo(sft_coef: float, tiny_base: Path, tiny_rollouts: Path) -> None:
    start = weights(load(tiny_base))
    options: dict[str, Any] = {"beta": 0.1, "sft_coef": sft_coef}
    ours = HSDPOModule(load(tiny_base), optimizer=lambda p: AdamW(p, lr=LEARNING_RATE, weight_decay=0.0), **options)
    theirs = TRLDPO(LEARNING_RATE, backbone=load(tiny_base), reference=FrozenCopy(), **options)
    for module in (ours, theirs):
        trainer = quiet_trainer()
        trainer.fit(module, datamodule=data(tiny_rollouts))
        assert trainer.global_step == 1
    found, expected = weights(theirs.backbone), weights(ours.backbone)
    assert found.keys() == expected.keys()
    moved = torch.cat([(expected[name] - start[name]).flatten() for name in start])
    gap = torch.cat([(found[name] - expected[name]).flatten() for name in start])
    assert moved.abs().max() > 0.9 * LEARNING_RATE
    # Adam's first update is the sign of the gradient, which is not sure where the gradient is nearly 0.
    assert (gap.abs() < 0.01 * LEARNING_RATE).float().mean() > 0.99


@pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed")
def test_weighted_pairs_are_refused(tiny_base: Path, tiny_rollouts: Path) -> None:
    module = TRLDPO(backbone=load(tiny_base), reference=FrozenCopy())
    with pytest.raises(InputError, match=r"pair train/\d+: TRL has no weights"):
        quiet_trainer().fit(module, datamodule=data(tiny_rollouts, gamma=0.5))


@pytest.mark.skipif(find_spec("trl") is not None, reason="TRL is installed")
def test_without_trl_the_stage_ends_in_one_line(tiny_base: Path, tiny_rollouts: Path) -> None:
    module = TRLDPO(backbone=load(tiny_base), reference=FrozenCopy())
    with pytest.raises(InputError, match="TRL is not installed"):
        quiet_trainer().fit(module, datamodule=data(tiny_rollouts))
