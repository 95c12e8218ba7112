"""The first 20 steps of R-SFT and HS-DPO repeat the stored losses, margins and gradient norms."""

from pathlib import Path

import pytest

from tests.support import golden


@pytest.mark.slow
@pytest.mark.parametrize("stage", golden.STAGES)
def test_the_first_steps_repeat_the_stored_curves(stage: str, tiny_base: Path, tiny_rollouts: Path) -> None:
    found = golden.record(stage, tiny_base, tiny_rollouts)
    assert golden.differences(found, golden.stored(stage)) == []


@pytest.mark.parametrize("stage", golden.STAGES)
def test_every_curve_has_all_steps(stage: str) -> None:
    curves = golden.stored(stage)
    assert set(curves) == set(golden.COLUMNS[stage])
    assert {len(values) for values in curves.values()} == {golden.STEPS}


def test_one_changed_value_is_a_difference() -> None:
    curves = dict(golden.stored("hsdpo"))
    curves["train/loss"] = [*curves["train/loss"][:-1], curves["train/loss"][-1] * 1.0001]
    del curves["train/margin"]
    assert golden.differences(curves, golden.stored("hsdpo")) == [
        f"train/loss: {curves['train/loss'][-1]!r} at step 19, expected {golden.stored('hsdpo')['train/loss'][-1]!r}",
        "train/margin: 0 steps, expected 20",
    ]
