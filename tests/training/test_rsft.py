import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import SGD, AdamW

from guardreasoner.errors import InputError
from guardreasoner.model.lora import LoRA
from guardreasoner.prompts import target
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reasoning_data import ReasoningDataModule
from guardreasoner.training.rsft import RSFTModule
from tests.support.tiny import TinySource, load, naive_logps, quiet_trainer, weights


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.1)


def fitted(base: Path, optimizer: Any = sgd, trainer: Trainer | None = None, **data: Any) -> RSFTModule:
    """Train in float64, so that only what should matter does."""
    module = RSFTModule(load(base, double=True), optimizer)
    (trainer or quiet_trainer()).fit(module, datamodule=ReasoningDataModule(TinySource(), **data))
    return module


class Losses(Callback):
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.values.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_five_lines_train_a_model(tiny_base: Path) -> None:
    losses = Losses()
    data = ReasoningDataModule(TinySource(), batch_size=8, epochs=6)
    module = RSFTModule(load(tiny_base), lambda parameters: AdamW(parameters, lr=0.02))
    trainer = quiet_trainer(callbacks=[losses])
    trainer.fit(module, datamodule=data)
    found = [row["train/loss"] for row in losses.values]
    assert len(found) == trainer.global_step == 18
    assert sum(found[-3:]) < 0.8 * sum(found[:3])
    assert 0 < trainer.callback_metrics["val/loss"] < found[0]


def test_the_loss_is_the_token_mean_of_the_step(tiny_base: Path) -> None:
    losses = Losses()
    fitted(tiny_base, trainer=quiet_trainer(callbacks=[losses]), batch_size=24, micro_batch_size=5, epochs=1)
    backbone = load(tiny_base, double=True)
    prompt_tokenizer, tasks = backbone.prompt_tokenizer, backbone.prompt_tokenizer.format.tasks
    with torch.no_grad():
        logps = [
            naive_logps(
                backbone.network, prompt_tokenizer.prompt(record), prompt_tokenizer.completion(target(record, tasks))
            )
            for record in TinySource().records("train")
        ]
    # by token, not by record: the records differ in length
    assert len({len(one) for one in logps}) > 2
    (row,) = losses.values
    assert row["train/loss"] == row["train/sft_loss"] == pytest.approx(-torch.cat(logps).mean().item(), rel=1e-6)
    assert row["train/grad_norm"] > 0


@pytest.mark.parametrize("optimizer", [sgd, lambda parameters: AdamW(parameters, lr=0.01)])
def test_micro_batches_do_not_change_the_weights(tiny_base: Path, optimizer: Any) -> None:
    whole, *split = (
        weights(fitted(tiny_base, optimizer, batch_size=12, micro_batch_size=micro, epochs=1)) for micro in (None, 1, 5)
    )
    start = weights(RSFTModule(load(tiny_base, double=True)))
    assert any(not torch.equal(value, start[name]) for name, value in whole.items())
    for other in split:
        for name, value in whole.items():
            torch.testing.assert_close(other[name], value, rtol=1e-8, atol=1e-8, msg=name)


def test_dropout_is_on_while_training(tiny_base: Path) -> None:
    seen: list[bool] = []

    class Mode(Callback):
        def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
            seen.extend(one.training for one in module.modules() if isinstance(one, torch.nn.Dropout))

    module = RSFTModule(load(tiny_base, lora=LoRA(r=2, dropout=0.1)))
    data = ReasoningDataModule(TinySource(), batch_size=12, epochs=1)
    quiet_trainer(callbacks=[Mode()], val_check_interval=1).fit(module, datamodule=data)
    assert len(seen) > 10
    assert all(seen)  # after validation, too


class Moments(Callback):
    """Keeps the first moment of Adam before the first and after the last step."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.before = self._moments(trainer)
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.after = self._moments(trainer)

    def _moments(self, trainer: Trainer) -> list[tuple[float, float]]:
        state = trainer.optimizers[0].state_dict()["state"].values()
        return [(float(one["step"]), float(one["exp_avg"].abs().sum())) for one in state]


def test_a_continued_run_keeps_the_moments_and_takes_the_new_peak(tiny_base: Path, tmp_path: Path) -> None:
    first, second = Moments(), Moments()
    trainer = quiet_trainer(callbacks=[first])
    module = RSFTModule(load(tiny_base), lambda parameters: AdamW(parameters, lr=0.01))
    trainer.fit(module, datamodule=ReasoningDataModule(TinySource(), batch_size=8, epochs=1))
    module.backbone.save(tmp_path / "rsft")
    torch.save(trainer.optimizers[0].state_dict(), tmp_path / "optimizer.pt")

    continued = RSFTModule(
        load(tmp_path / "rsft"),
        lambda parameters: AdamW(parameters, lr=0.003),
        optimizer_state=str(tmp_path / "optimizer.pt"),
    )
    data = ReasoningDataModule(TinySource(), batch_size=8, epochs=3, start_epoch=1)
    trainer = quiet_trainer(callbacks=[second])
    trainer.fit(continued, datamodule=data)
    assert first.before == []
    assert second.before == first.after
    assert second.lr == 0.003
    assert trainer.global_step == 6
    assert {step for step, _ in second.after} == {3 + 6}
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)  # a cosine of its own


def test_a_missing_optimizer_state_is_named(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.optimizer_state: .*absent\.pt: no such file"):
        RSFTModule(load(tiny_base), optimizer_state=str(tmp_path / "absent.pt"))


def test_a_loss_that_is_no_number_stops_before_the_update(tiny_base: Path) -> None:
    backbone = load(tiny_base)
    with torch.no_grad():
        next(backbone.parameters())[5] = float("nan")
    before = weights(backbone)
    with pytest.raises(InputError, match="step 0: the loss is nan") as error:
        quiet_trainer().fit(RSFTModule(backbone), datamodule=ReasoningDataModule(TinySource(), batch_size=8))
    assert "model.optimizer.lr" in (error.value.hint or "")
    after = weights(backbone)
    assert all(torch.equal(value.nan_to_num(), after[name].nan_to_num()) for name, value in before.items())


def test_a_gradient_that_is_no_number_stops_before_the_update(tiny_base: Path) -> None:
    backbone = load(tiny_base)
    before = weights(backbone)
    next(backbone.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(InputError, match="step 0"):
        quiet_trainer().fit(RSFTModule(backbone), datamodule=ReasoningDataModule(TinySource(), batch_size=8))
    assert all(torch.equal(value, weights(backbone)[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_epochs": 2}, r"trainer\.max_epochs must be 1, got 2"),
        ({"max_epochs": -1}, r"trainer\.max_epochs must be 1, got -1"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches"),
        ({"gradient_clip_val": 1.0}, "gradient_clip_val"),
    ],
)
def test_trainer_settings_that_would_regroup_steps_are_refused(
    settings: dict[str, Any], named: str, tiny_base: Path
) -> None:
    with pytest.raises((InputError, MisconfigurationException), match=named) as error:
        fitted(tiny_base, trainer=quiet_trainer(**settings), batch_size=8)
    if "max_epochs" in settings:
        assert "data.epochs" in (error.value.hint or "")  # type: ignore[union-attr]


def train_stages(base: str, rollouts: str, size: int, out: str, **trainer: Any) -> None:
    """Train both stages with ``size`` examples a step and keep the weights and the last logged values."""

    class Keep(Callback):
        def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
            if trainer.is_global_zero:
                logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
                file = Path(out) / f"{type(module).__name__}-{size}.pt"
                torch.save({"weights": weights(module), "logged": logged}, file)

    source = TinySource()
    rsft = RSFTModule(load(Path(base), double=True), sgd)
    hsdpo = HSDPOModule(load(Path(base), double=True), optimizer=sgd, beta=0.1)
    reasoning = ReasoningDataModule(source, batch_size=size, micro_batch_size=3, epochs=1)
    pairs = PreferenceDataModule(
        source, [rollouts], batch_size=size, micro_batch_size=2, epochs=1, validation_share=0.0
    )
    quiet_trainer(callbacks=[Keep()], **trainer).fit(rsft, datamodule=reasoning)
    quiet_trainer(callbacks=[Keep()], **trainer).fit(hsdpo, datamodule=pairs)


UNEVEN, LONELY = 9, 7
"""Examples a step. 24 records and 15 pairs make steps of 9, 9, 6 and of 9, 6: an odd number for two processes. In steps
of 7 the last one of the pairs holds 1: one of the processes has none."""

PROGRAM = """
import sys
from tests.training.test_rsft import train_stages

*folders, sizes = sys.argv[1:]
for size in sizes.split(","):
    train_stages(*folders[:2], int(size), folders[2], devices=2, strategy="ddp_fork")
"""


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tiny_rollouts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder that two processes filled, and one that one process filled."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    folders = [str(folder) for folder in (tiny_base, tiny_rollouts, two)]
    command = [sys.executable, "-c", PROGRAM, *folders, f"{UNEVEN},{LONELY}"]
    # a process of its own: one that has computed a gradient must not be forked
    subprocess.run(command, capture_output=True, timeout=120, cwd=Path(__file__).parents[2])
    for size in (UNEVEN, LONELY):
        train_stages(str(tiny_base), str(tiny_rollouts), size, str(one))
    return two, one


@pytest.mark.parametrize("size", [UNEVEN, LONELY])
@pytest.mark.parametrize("module", ["RSFTModule", "HSDPOModule"])
def test_two_processes_train_the_same_weights(module: str, size: int, trained: tuple[Path, Path]) -> None:
    two, one = (torch.load(folder / f"{module}-{size}.pt") for folder in trained)
    assert two["weights"].keys() == one["weights"].keys()
    for name, value in one["weights"].items():
        # the norms compute in float32 whatever they get, and how tokens are grouped changes how they round
        torch.testing.assert_close(two["weights"][name], value, rtol=1e-8, atol=1e-8, msg=name)
    assert two["logged"] == pytest.approx(one["logged"], rel=1e-5, abs=1e-6)


def test_the_optimizer_state_of_other_weights_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    def fit(lora: LoRA | None, state: Path | None) -> Trainer:
        module = RSFTModule(
            load(tiny_base, lora=lora),
            lambda parameters: AdamW(parameters, lr=0.01),
            optimizer_state=None if state is None else str(state),
        )
        trainer = quiet_trainer()
        trainer.fit(module, datamodule=ReasoningDataModule(TinySource(), batch_size=24, epochs=1))
        return trainer

    kinds = {"full": None, "lora": LoRA(r=2)}
    for name, lora in kinds.items():
        torch.save(fit(lora, None).optimizers[0].state_dict(), tmp_path / f"{name}.pt")
    for name, other in (("full", "lora"), ("lora", "full")):
        with pytest.raises(InputError, match=r"model\.optimizer_state: .*belongs to other weights"):
            fit(kinds[name], tmp_path / f"{other}.pt")
