"""Mining results in TensorBoard at the start of the fit that trains on the mined pairs."""

from pathlib import Path

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from guardreasoner.callbacks import MiningFindings
from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reasoning_data import ReasoningDataModule
from guardreasoner.training.rsft import RSFTModule
from tests.support.tiny import TinySource, command, load, quiet_trainer


def test_counts_and_plots_are_logged_once(tiny_base: Path, tiny_rollouts: Path, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="run", version="0")
    data = PreferenceDataModule(TinySource(), [str(tiny_rollouts)], batch_size=8, epochs=2)
    trainer = quiet_trainer(logger=logger, callbacks=[MiningFindings()], limit_val_batches=0)
    trainer.fit(HSDPOModule(load(tiny_base)), datamodule=data)
    events = EventAccumulator(str(tmp_path / "run" / "0"))
    events.Reload()
    (table,) = events.Tensors("mining/counts/text_summary")
    assert table.step == 0
    rows = [line.strip("|").split("|") for line in table.tensor_proto.string_val[0].decode().splitlines()[2:]]
    total = {name.strip(): int(count) for name, count in rows}
    # Of 24 records with 4 outputs each, those with 1 to 3 wrong outputs are hard.
    assert (total["records"], total["outputs"], total["hard"], total["pairs"]) == (24, 96, 15, 15)
    assert (total["all right"], total["all wrong"], total["beyond cap"]) == (5, 4, 0)
    images = [tag for tag in events.Tags()["images"] if tag.startswith("mining/")]
    assert sorted(images) == [f"mining/{name}" for name in ("growth", "outcomes", "votes", "weights")]


def test_data_without_findings_log_none(tiny_base: Path, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="run", version="0")
    trainer = quiet_trainer(logger=logger, callbacks=[MiningFindings()], limit_val_batches=0)
    trainer.fit(RSFTModule(load(tiny_base)), datamodule=ReasoningDataModule(TinySource(), batch_size=12, epochs=1))
    events = EventAccumulator(str(tmp_path / "run" / "0"))
    events.Reload()
    assert not [tag for kind in ("scalars", "images", "tensors") for tag in events.Tags()[kind] if "mining" in tag]


@pytest.mark.parametrize(("stage", "expected"), [("hsdpo", True), ("rsft", False)])
@pytest.mark.usefixtures("workplace")
def test_the_command_line_adds_the_callback_if_data_have_findings(
    stage: str, expected: bool, tiny_base: Path, tiny_rollouts: Path
) -> None:
    more = ("--data.rollouts", f'["{tiny_rollouts}"]') if stage == "hsdpo" else ()
    _, *argv = command(stage, tiny_base, *more)
    callbacks = GuardCLI("fit", argv).trainer.callbacks  # type: ignore[attr-defined]
    assert any(isinstance(callback, MiningFindings) for callback in callbacks) == expected
