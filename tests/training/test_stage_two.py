"""HS-DPO from an R-SFT model, each way and each family: the reference is that model, and only the policy moves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, two_row
from guardreasoner.model.log_probs import sequence_logps
from guardreasoner.model.lora import LoRA
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reference import FrozenAdapter, FrozenCopy, Precomputed
from tests.support.architectures import folders
from tests.support.tiny import TinySource, load, quiet_trainer

__all__ = ["folders"]  # fixture

FAMILIES = ("llama", "qwen3", "gemma", "mistral", "phi3")
NEW = LoRA(r=2, alpha=4)
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "all weights": ("base", {}),
    "adapter kept": ("adapter", {}),
    "adapter merged": ("merged", {"lora": NEW}),
    "4-bit, adapter kept": ("adapter", {"quantization": "4bit"}),
    "4-bit, adapter merged": ("merged", {"quantization": "4bit", "lora": NEW}),
}
"""For each way, the R-SFT model and the options of the backbone in stage two."""
REFERENCES = ("live", "stored")

StageOne = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def stage_one(folders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> StageOne:
    """Return a function that gives the R-SFT model of a family: all weights, an adapter, or the adapter merged."""
    made: dict[tuple[str, str], Path] = {}

    def folder(family: str, kind: str) -> Path:
        if kind == "base":
            return folders(family)
        if (family, kind) not in made:
            place = tmp_path_factory.mktemp("stage") / kind
            torch.manual_seed(0)
            backbone = load(folders(family), lora=LoRA(r=2, alpha=4))
            with torch.no_grad():
                for name, parameter in backbone.named_parameters():
                    if "lora_B" in name:
                        parameter.normal_(std=0.3)
            if kind == "merged":
                backbone.network = backbone.network.merge_and_unload(safe_merge=True)
            backbone.save(place)
            made[family, kind] = place
        return made[family, kind]

    return folder


class Margins(Callback):
    """Keeps the mean margin of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.values.append(float(trainer.callback_metrics["train/margin"]))


@torch.no_grad()
def logps(backbone: Backbone, batch: Batch) -> Tensor:
    return sequence_logps(backbone(batch), batch.sequence, batch.sequences).double()


def optimizer_of(quantized: bool) -> Callable[[Any], torch.optim.Optimizer]:
    if not quantized:
        return lambda parameters: torch.optim.AdamW(parameters, lr=0.01)
    from bitsandbytes.optim import PagedAdamW8bit

    # tensors of fewer values than this keep a state of 32 bits
    return lambda parameters: PagedAdamW8bit(parameters, lr=0.01, min_8bit_size=16)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("kept", REFERENCES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "family", [FAMILIES[0], *(pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES[1:])]
)
def test_the_reference_is_the_rsft_model(
    family: str, way: str, kept: str, stage_one: StageOne, tiny_rollouts: Path, tmp_path: Path
) -> None:
    kind, options = WAYS[way]
    quantized = "quantization" in options
    path = stage_one(family, kind)
    backbone = load(path, **options)
    assert backbone.supports_packing
    reference = (
        Precomputed(str(tmp_path / "stored"))
        if kept == "stored"
        else FrozenAdapter()
        if backbone.has_adapter
        else FrozenCopy()
    )
    data = PreferenceDataModule(TinySource(), [str(tiny_rollouts)], batch_size=8, epochs=2, validation_share=0.0)
    module, margins = HSDPOModule(backbone, reference, optimizer=optimizer_of(quantized)), Margins()
    trainer = quiet_trainer(callbacks=[margins])
    trainer.fit(module, datamodule=data)

    # the R-SFT model, loaded once more, in the same precision and without what stage two adds
    batch = two_row([data.train[index] for index in range(4)], backbone.prompt_tokenizer.padding)
    rsft = logps(load(path, **{name: value for name, value in options.items() if name != "lora"}), batch)
    torch.testing.assert_close(reference.sequence_logps(batch).double(), rsft, rtol=1e-5, atol=1e-4)
    if kind == "adapter":
        without = logps(load(stage_one(family, "base"), **options), batch)
        assert float((without - rsft).abs().mean()) > 0.1, "an adapter that is off would pass as well"

    if kept == "live":
        assert margins.values[0] == 0
    else:  # the stored values were computed in other rows
        assert margins.values[0] == pytest.approx(0, abs=1e-4)
    assert abs(margins.values[-1]) > 0.01
    policy = logps(backbone, batch)
    assert float((policy - rsft).abs().mean()) > 0.01
    if quantized:
        states = trainer.optimizers[0].state.values()
        assert {state["state1"].dtype for state in states} == {torch.uint8}

    backbone.save(tmp_path / "out")
    again = load(tmp_path / "out", **({"quantization": "4bit"} if quantized else {}))
    torch.testing.assert_close(logps(again, batch), policy, rtol=1e-6, atol=1e-5)
    assert "reference" not in "".join(name for name in again.state_dict())
