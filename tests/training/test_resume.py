"""A fit that is resumed from any checkpoint ends in the weights and losses of the uninterrupted fit, bit for bit."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from guardreasoner.model.batch import Batch
from guardreasoner.training.reference import FrozenCopy
from tests.support.tiny import command

Start = Callable[..., str]

CHECKPOINTS = [
    {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {
            "dirpath": "checkpoints-of-fit",
            "every_n_train_steps": 2,
            "save_top_k": -1,
            "filename": "{step}",
        },
    }
]
pytestmark = pytest.mark.slow

LORA = ("--model.backbone.lora", '{"r": 2, "alpha": 4, "dropout": 0.3}')


def fit(start: Start, argv: tuple[str, ...], output: str, *more: str) -> None:
    """Run a fit that logs every step to ``csv/OUTPUT`` and writes a model folder."""
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
    logger |= {"init_args": {"save_dir": "csv", "name": output, "version": 0}}  # type: ignore[dict-item]
    start(*argv, "--output", output, "--trainer.logger", json.dumps(logger), "--trainer.log_every_n_steps", "1", *more)


def weights(folder: str) -> dict[str, torch.Tensor]:
    """Return the weights of a model or adapter folder."""
    return {name: value for file in Path(folder).glob("*.safetensors") for name, value in load_file(file).items()}


def losses(output: str) -> dict[int, str]:
    """Return the logged training loss by step, as text."""
    with Path("csv", output, "version_0", "metrics.csv").open() as file:
        return {int(row["step"]): row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]}


def require_exact_resume(
    start: Start, argv: tuple[str, ...], steps: int, clean: Callable[[], None] | None, updates: int = 1
) -> None:
    """Fit, resume from each checkpoint, and require equal weights and losses of the remaining steps.

    Args:
        start: runs a command.
        argv: the fit.
        steps: its number of steps.
        clean: called before each resumed fit.
        updates: updates of the weights per step, which the names of the checkpoints count.
    """
    checkpoints = ("--trainer.enable_checkpointing", "true", "--trainer.callbacks", json.dumps(CHECKPOINTS))
    fit(start, argv, "whole", *checkpoints)
    whole, whole_losses = weights("whole"), losses("whole")
    assert len(whole_losses) == steps
    names = sorted(Path("checkpoints-of-fit").glob("*.ckpt"))
    assert len(names) >= 2
    for number, checkpoint in enumerate(names[:2]):
        if clean is not None:
            clean()
        output = f"resumed-{number}"
        fit(start, argv, output, "--ckpt_path", str(checkpoint))
        first = int(checkpoint.stem.split("=")[1]) // updates
        assert losses(output) == {step: loss for step, loss in whole_losses.items() if step >= first}
        resumed = weights(output)
        assert resumed.keys() == whole.keys()
        assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


@pytest.mark.parametrize("more", [(), LORA], ids=["all weights", "LoRA with dropout"])
def test_rsft(more: tuple[str, ...], tiny_base: Path, workplace: Path, start: Start) -> None:
    argv = command("rsft", tiny_base, "--data.batch_size", "6", "--data.epochs", "2", *more)
    require_exact_resume(start, argv, 8, None)


def remove_stored_reference() -> None:
    shutil.rmtree("logs/reference", ignore_errors=True)


@pytest.mark.parametrize(
    ("reference", "more"),
    [
        ("FrozenCopy", ()),
        ("FrozenAdapter", LORA),
        ("Precomputed", ()),
    ],
)
def test_hsdpo(
    reference: str,
    more: tuple[str, ...],
    tiny_base: Path,
    tiny_rollouts: Path,
    workplace: Path,
    start: Start,
) -> None:
    argv = command(
        *("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", "--data.batch_size", "4"),
        *("--model.reference", f"guardreasoner.{reference}", *more),
    )
    require_exact_resume(start, argv, 8, remove_stored_reference)


@pytest.mark.parametrize(
    ("updates", "more"),
    [(1, ()), (2, ("--model.beta", "0.1", "--model.updates", "2", *LORA))],
    ids=["β = 0", "LoRA, β > 0, two updates"],
)
def test_grpo(
    updates: int, more: tuple[str, ...], both_speeds: Path, tiny_rollouts: Path, workplace: Path, start: Start
) -> None:
    argv = command(
        *("grpo", both_speeds, "--data.rollouts", f"[{tiny_rollouts}]", "--data.batch_size", "4"),
        *("--data.epochs", "2", "--model.k", "4", "--recipe.max_new_tokens", "60", "--recipe.grpo_lr", "1.0e-3", *more),
    )
    require_exact_resume(start, argv, 8, None, updates)
    whole = weights("whole")
    assert more or any(not torch.equal(value, whole[name]) for name, value in weights(str(both_speeds)).items())


def test_a_model_with_an_adapter_keeps_it_as_the_reference(
    tiny_adapter: Path, tiny_rollouts: Path, workplace: Path, start: Start
) -> None:
    argv = command(
        *("hsdpo", tiny_adapter, "--data.rollouts", f"[{tiny_rollouts}]", "--data.batch_size", "4"),
        *("--model.reference", "guardreasoner.FrozenAdapter"),
    )
    require_exact_resume(start, argv, 8, None)


def test_a_fresh_run_after_a_resumed_one_starts_at_margin_zero(
    tiny_base: Path, tiny_rollouts: Path, workplace: Path, start: Start
) -> None:
    argv = command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", "--data.batch_size", "4")
    checkpoints = ("--trainer.enable_checkpointing", "true", "--trainer.callbacks", json.dumps(CHECKPOINTS))
    fit(start, argv, "whole", *checkpoints)
    remove_stored_reference()
    fit(start, argv, "resumed", "--ckpt_path", str(sorted(Path("checkpoints-of-fit").glob("*.ckpt"))[-1]))
    fit(start, argv, "fresh")
    assert losses("fresh") == losses("whole")


class Shifted(FrozenCopy):
    """A reference that is not the R-SFT model."""

    def sequence_logps(self, batch: Batch) -> torch.Tensor:
        """Return the values of the R-SFT model with another one for the first completion."""
        values = super().sequence_logps(batch)
        return values + torch.nn.functional.one_hot(torch.tensor(0), len(values)) * 1e-2


def test_a_reference_that_is_not_the_initial_policy_is_refused(
    tiny_base: Path, tiny_rollouts: Path, workplace: Path, refused: Start
) -> None:
    argv = command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]")
    assert "step 0: the margin is 0.01 nats" in refused(*argv, "--model.reference", f"{__name__}.Shifted")


def test_edited_reference_values_are_computed_again(
    tiny_base: Path, tiny_rollouts: Path, workplace: Path, start: Start
) -> None:
    argv = command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]")
    start(*argv)
    (file,) = Path("logs/reference").glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    values = load_file(file)["logps"]
    save_file({"logps": values + 1}, file, metadata=metadata)
    assert "is damaged: the reference values are computed again" in start(*argv, "--output", "again")
    assert torch.equal(load_file(file)["logps"], values)


def test_a_checkpoint_of_another_model_is_refused(
    tiny_base: Path, workplace: Path, start: Start, refused: Start
) -> None:
    argv = command("rsft", tiny_base, "--data.batch_size", "6", "--data.epochs", "1")
    checkpoints = ("--trainer.enable_checkpointing", "true", "--trainer.callbacks", json.dumps(CHECKPOINTS))
    fit(start, argv, "whole", *checkpoints)
    (checkpoint, *_) = sorted(Path("checkpoints-of-fit").glob("*.ckpt"))
    message = refused(*argv, *LORA, "--output", "resumed", "--ckpt_path", str(checkpoint))
    assert "ckpt_path: the checkpoint does not fit the model" in message
