"""The progress of a fit."""

import logging
from typing import Any

import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from guardreasoner.callbacks import progress_bar
from guardreasoner.callbacks.progress_bar import StepProgress, metric_text
from tests.support.tiny import quiet_trainer


def test_metrics_fit_beside_the_bar() -> None:
    metrics = {"train/tokens_per_second": 164723.4, "val/loss": 0.70999, "train/loss": 2.107, "train/margin": -12.345}
    text = metric_text(metrics)
    assert text == "loss 2.11 margin -12.3 val 0.71 tokens/s 164,723"
    assert metric_text({"mine": 1, "note": "x"}) == "mine 1 note x"


class LoggedModel(BoringModel):
    """A model that shows its loss beside the bar."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        result = super().training_step(*args, **kwargs)
        self.log("train/loss", 0.5, prog_bar=True)
        return result


def test_without_a_terminal_the_steps_and_the_time_left_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress_bar, "_LOG_EVERY", 0.0)
    trainer = quiet_trainer(
        callbacks=[StepProgress()], enable_progress_bar=True, max_epochs=1, limit_train_batches=3, limit_val_batches=0
    )
    with caplog.at_level(logging.INFO, "guardreasoner"):
        trainer.fit(LoggedModel())
    lines = [record.getMessage() for record in caplog.records if record.name == "guardreasoner"]
    assert lines == [f"batch {n} of 3, 0 min left; loss 0.5" for n in (1, 2, 3)]
