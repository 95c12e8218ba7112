"""LoRA on the upper layers alone: the layers below have no backward pass."""

from pathlib import Path

import pytest
import torch

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.lora import LoRA
from tests.support.tiny import load


def test_only_the_upper_layers_are_adapted(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base, lora=LoRA(r=2, alpha=4, upper_layers=1))
    trained = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 7  # A and B of four attention and three feed-forward matrices
    assert all(".layers.1." in name for name in trained)
    everywhere = load(tiny_base, lora=LoRA(r=2, alpha=4))
    assert sum(parameter.requires_grad for parameter in everywhere.parameters()) == 2 * len(trained)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_layers_below_have_no_backward_pass(tiny_base: Path, checkpointing: bool) -> None:
    backbone = load(tiny_base, lora=LoRA(r=2, alpha=4, upper_layers=1), gradient_checkpointing=checkpointing).train()
    outputs: list[torch.Tensor] = []
    decoder = backbone.network.get_base_model().model
    for layer in decoder.layers:
        layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    hidden = decoder(input_ids=torch.tensor([[3, 4, 5]]), use_cache=False).last_hidden_state
    assert [output.requires_grad for output in outputs] == [False, True]
    hidden.sum().backward()
    assert all(weight.grad is not None for weight in backbone.parameters() if weight.requires_grad)


def test_a_saved_adapter_of_upper_layers_gives_the_same_outputs(tiny_base: Path, tmp_path: Path) -> None:
    lora = LoRA(r=2, alpha=4, target_modules=["q_proj", "down_proj"], upper_layers=1)
    backbone = load(tiny_base, lora=lora)
    ids = torch.tensor([[3, 4, 5, 6]])
    before = backbone.network(ids).logits
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    backbone.save(tmp_path / "adapter")
    again = load(tmp_path / "adapter", lora=lora)
    assert not torch.allclose(backbone.network(ids).logits, before)
    torch.testing.assert_close(again.network(ids).logits, backbone.network(ids).logits)


def test_more_layers_than_there_are_is_refused(tiny_base: Path) -> None:
    backbone = Backbone(str(tiny_base), lora=LoRA(upper_layers=3))
    with pytest.raises(InputError, match=r"lora.upper_layers: 3, but the model has 2 layers"):
        backbone.load()


def test_other_layers_than_the_adapter_has_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    load(tiny_base, lora=LoRA(r=2, alpha=4)).save(tmp_path / "adapter")
    with pytest.raises(InputError, match=r"model\.backbone\.lora sets upper_layers 1"):
        load(tmp_path / "adapter", lora=LoRA(r=2, alpha=4, upper_layers=1))
    upper = LoRA(r=2, alpha=4, upper_layers=1)
    load(tiny_base, lora=upper).save(tmp_path / "upper")
    load(tmp_path / "upper", lora=upper)
    with pytest.raises(InputError, match=r"the adapter has 1 layers, but model\.backbone\.lora sets upper_layers 2"):
        load(tmp_path / "upper", lora=LoRA(r=2, alpha=4, upper_layers=2))
