"""Products of oneDNN are those of ``nn.Linear``, and are only used where that gains."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from guardreasoner.model import linear_layer
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Example, StepCollator
from guardreasoner.model.linear_layer import OneDNNLinear, linear, product, subtract_summed_product, summed_product
from guardreasoner.model.log_probs import adopt_output_layer
from guardreasoner.model.lora import LoRA, add_adapter
from guardreasoner.model.packing import packed

Sizes = list[tuple[int, int]]


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> Sizes:
    """Use oneDNN on every processor and for small products; return the rows and columns of each of its results."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of PyTorch has no oneDNN")
    found: Sizes = []
    own = linear_layer._onednn

    def recorded(x: Tensor, weight: Tensor) -> Tensor:
        found.append((len(x), len(weight)))
        return own(x, weight)

    monkeypatch.setattr(linear_layer, "_onednn", recorded)
    monkeypatch.setattr(linear_layer, "_LEAST_WORK", 1)
    monkeypatch.setattr(linear_layer, "gains_from_onednn", lambda: True)
    return found


def results(function: Callable[..., Tensor], *inputs: Tensor | None) -> list[Tensor]:
    """Return the output of a function and the gradients of its inputs."""
    leaves = [None if one is None else one.detach().requires_grad_() for one in inputs]
    output = function(*leaves)
    torch.manual_seed(1)
    output.backward(torch.randn(output.shape))
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None)]


@pytest.mark.parametrize(
    "shape", [(1, 40), (31, 40), (32, 40), (33, 40), (128, 40), (129, 40), (3, 100, 40), (2, 5, 7, 40)]
)
@pytest.mark.parametrize("has_bias", [False, True])
def test_output_and_gradients_are_those_of_a_linear_layer(shape: tuple[int, ...], has_bias: bool, sizes: Sizes) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(48, 40), torch.randn(48) if has_bias else None
    expected = results(F.linear, x, weight, bias)
    torch.testing.assert_close(results(linear, x, weight, bias), expected, rtol=1e-4, atol=1e-4)
    assert sizes


def test_rows_are_rounded_up_to_few_sizes(sizes: Sizes) -> None:
    weight = torch.randn(48, 40)
    for rows in range(1, 600):
        assert len(linear(torch.randn(rows, 40), weight)) == rows
    assert {rows for rows, _ in sizes} == {32, 64, 96, 128, 256, 384, 512, 640}


def test_an_output_may_be_changed_in_place() -> None:
    weight = torch.randn(48, 40, requires_grad=True)
    output = linear(torch.randn(33, 40), weight)
    output.addmm_(torch.randn(33, 2), torch.randn(2, 48)).sum().backward()
    assert weight.grad is not None


def test_a_frozen_weight_gets_no_gradient(sizes: Sizes) -> None:
    x, weight = torch.randn(256, 40, requires_grad=True), torch.randn(48, 40)
    linear(x, weight).sum().backward()
    assert sizes == [(256, 48), (256, 40)]  # the output and the gradient of x


def test_products_without_gradients(sizes: Sizes) -> None:
    torch.manual_seed(0)
    a, b, c = torch.randn(300, 48), torch.randn(300, 40), torch.randn(48, 40)
    torch.testing.assert_close(product(a, c), a @ c)
    torch.testing.assert_close(summed_product(a, b), a.T @ b, rtol=1e-4, atol=1e-4)
    target = torch.randn(48, 40)
    expected = target - a.T @ b
    subtract_summed_product(target, a, b)
    torch.testing.assert_close(target, expected, rtol=1e-4, atol=1e-4)
    assert sizes == [(256, 40), (64, 40), (40, 48), (40, 48)]  # what oneDNN copies is the smaller matrix


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.randn(64, 40).double(), torch.randn(48, 40).double()),
        (torch.randn(64, 40).bfloat16(), torch.randn(48, 40).bfloat16()),
        (torch.randn(64, 40), torch.randn(16, 40)),
        (torch.randn(64, 16), torch.randn(40, 16)),
        (torch.randn(0, 40), torch.randn(48, 40)),
        (torch.randn(64, 40, device="meta"), torch.randn(48, 40, device="meta")),
    ],
)
def test_other_products_are_left_to_pytorch(x: Tensor, weight: Tensor, sizes: Sizes) -> None:
    output = linear(x, weight)
    assert output.shape == (len(x), len(weight))
    assert output.dtype == x.dtype
    assert sizes == []


def test_autocast_and_the_switch_of_pytorch_are_respected(sizes: Sizes) -> None:
    x, weight = torch.randn(64, 40), torch.randn(48, 40)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        linear(x, weight)
    assert sizes == []


@pytest.mark.parametrize("lora", [None, LoRA(r=4, alpha=8, dropout=0.0)])
def test_a_step_has_the_losses_and_gradients_of_plain_layers(lora: LoRA | None, sizes: Sizes) -> None:
    torch.manual_seed(0)
    config: Any = LlamaConfig(
        vocab_size=90, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2
    )
    network: Any = LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    adopt_output_layer(network)
    if lora is not None:
        network = add_adapter(network, lora)
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.1)
    ids = torch.randint(90, (4, 60)).tolist()
    examples = [Example(str(n), tuple(row[:20]), (tuple(row[20:40]), tuple(row[40:]))) for n, row in enumerate(ids)]
    (batch,) = StepCollator(0, 4, packed)(examples).batches
    found = []
    for used in (True, False):
        backbone = Backbone("made here")
        backbone.use(copy.deepcopy(network))
        assert any(type(layer) is OneDNNLinear for layer in backbone.modules())
        with torch.backends.mkldnn.flags(enabled=used):
            values = backbone(batch)
            values.sum().backward()
        gradients = {name: w.grad for name, w in backbone.network.named_parameters() if w.grad is not None}
        found.append((values.detach(), gradients))
    assert found[0][1].keys() == found[1][1].keys()
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
    assert len(sizes) > 20


def test_without_avx512_products_stay_with_mkl() -> None:
    program = "from guardreasoner.model.linear_layer import gains_from_onednn; print(gains_from_onednn())"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
