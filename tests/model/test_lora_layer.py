"""The fused LoRA layer gives the outputs and gradients of peft's layer, with fewer passes over the output."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from guardreasoner.model.lora_layer import FusedLoraLinear, fuse_lora_layers


def layers(dropout: float = 0.0, **options: Any) -> tuple[Any, Any]:
    """Return a network with one peft layer, and its fused copy."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=12, lora_dropout=dropout, target_modules=["0"], **options)
    adapted = get_peft_model(nn.Sequential(nn.Linear(24, 40)), config).double()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    fused = copy.deepcopy(adapted)
    fuse_lora_layers(fused)
    return adapted, fused


def results(network: Any, shape: Sequence[int]) -> dict[str, Tensor]:
    """Return the output and all gradients on a random input."""
    torch.manual_seed(1)
    x = torch.randn(*shape, 24, dtype=torch.float64, requires_grad=True)
    output = network(x)
    output.sin().sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {"output": output.detach(), "x": x.grad, **gradients}


@pytest.mark.parametrize("shape", [(1, 7), (5, 1), (9,)])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_outputs_and_gradients_are_those_of_peft(shape: tuple[int, ...], dropout: float) -> None:
    plain, fused = layers(dropout)
    assert [type(m) for m in (plain.base_model.model[0], fused.base_model.model[0])] == [Linear, FusedLoraLinear]
    expected, found = results(plain, shape), results(fused, shape)
    assert expected.keys() == found.keys()
    assert len(expected) == 4
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-12)


class Passes(TorchDispatchMode):
    """Counts the elementwise operations whose result has the size of the layer's output."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in (torch.ops.aten.mul, torch.ops.aten.add) and result.numel() == self.size:
            self.count += 1
        return result


def test_no_pass_scales_or_adds_the_output() -> None:
    counts = []
    for network in layers():
        with Passes(7 * 40) as passes:
            network(torch.randn(7, 24, dtype=torch.float64))
        counts.append(passes.count)
    assert counts == [2, 0]


def test_other_cases_are_left_to_peft() -> None:
    for options in ({"use_dora": True}, {"lora_bias": True}):
        plain, fused = layers(**options)
        x = torch.randn(3, 24, dtype=torch.float64)
        torch.testing.assert_close(fused(x), plain(x), rtol=0, atol=0)
    plain, fused = layers()
    x = torch.randn(3, 24, dtype=torch.float64)
    with fused.disable_adapter():
        assert torch.equal(fused(x), fused.base_model.model[0].base_layer(x))
    fused.add_adapter("second", LoraConfig(r=2, lora_alpha=2, target_modules=["0"]))
    fused.base_model.set_adapter(["default", "second"])
    torch.testing.assert_close(fused(x), plain(x))  # a new adapter changes nothing
    fused.base_model.set_adapter("default")
    expected = fused(x)
    fused.merge_adapter()
    torch.testing.assert_close(fused(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert layers()[1](x).dtype == layers()[0](x).dtype
