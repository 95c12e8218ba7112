"""Settings of the trainer that are valid for Lightning work."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "flags",
    [
        ("--trainer.logger", "true", "--trainer.precision", "bf16-true"),
        ("--trainer.logger", "false", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"),
    ],
)
def test_a_fit_with_these_flags(
    flags: tuple[str, ...], start: Callable[..., str], workplace: Path, tiny_base: Path
) -> None:
    start(
        *("fit", "--config", "rsft", "--model.backbone.path", str(tiny_base), "--auto_build", "false"),
        *("--data.source", "tests.support.tiny.TinySource", "--output", "made/model", "--data.epochs", "1"),
        *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", *flags),
    )
    curves = list(Path("logs/fit/model").rglob("events.out.tfevents*"))
    assert len(curves) == (1 if "true" in flags else 0)
    from safetensors.torch import load_file

    dtypes = {str(weight.dtype) for weight in load_file("made/model/model.safetensors").values()}
    assert dtypes == {"torch.bfloat16" if "bf16-true" in flags else "torch.float32"}
