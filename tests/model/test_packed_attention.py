"""Packed rows give the loss and gradients of plain rows, for every architecture that is claimed."""

import copy
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Olmo2Config, Phi3Config

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Collator, Example, Segment, StepCollator, two_row
from guardreasoner.model.log_probs import CompletionLogps, sequence_logps, sequence_nll
from guardreasoner.model.lora import LoRA
from guardreasoner.model.packed_attention import PackedContext
from guardreasoner.model.packing import packed
from guardreasoner.training.losses import dpo, hsdpo
from guardreasoner.training.reasoning_data import ReasoningDataModule
from guardreasoner.training.rsft import RSFTModule
from tests.support.architectures import ARCHITECTURES, SHAPE, double, folders
from tests.support.micro_batches import micro_batches
from tests.support.tiny import TinySource, quiet_trainer

__all__ = ["folders"]  # a fixture


def step(
    backbone: Backbone, examples: Sequence[Example], collate: Collator, micro: int
) -> tuple[float, dict[str, Tensor]]:
    """Return loss and gradients of one HS-DPO (or, with one completion each, R-SFT) step in micro-batches.

    What the prompts begin with is computed once, as the modules do it.
    """
    backbone.zero_grad()
    total = 0.0
    batches = StepCollator(0, micro, collate)(examples).batches
    original = backbone.encode_prefix(batches[0].prefix_ids) if len(batches) > 1 else None
    gathering = original and original.detached()
    for number, batch in enumerate(batches):
        last = number + 1 == len(batches)
        logps = backbone.completion_logps(batch, original if last else gathering)
        nll = sequence_nll(logps, batch.sequence, batch.sequences)
        loss = nll.sum()
        if batch.sequences > len(batch.ids):
            policy = sequence_logps(logps, batch.sequence, batch.sequences)
            pairs = CompletionLogps(policy, batch.lengths, batch.reference_logps)
            chosen, rejected = (pairs.select(batch.number == number) for number in (0, 1))
            loss = hsdpo(dpo(chosen, rejected, 0.1), batch.weight[batch.number == 0], -chosen.per_token, 2.0).sum()
        surrogate_loss = original.surrogate_loss(gathering) if last and original and gathering else 0.0
        (loss / len(examples) + surrogate_loss).backward()
        total += float(loss) / len(examples)
    return total, {n: p.grad.clone() for n, p in backbone.named_parameters() if p.grad is not None}


def require_equal(backbone: Backbone, examples: Sequence[Example], tolerance: float, micro: int = 8) -> None:
    loss, gradients = step(backbone, examples, two_row, 1)
    found, packed_gradients = step(backbone, examples, packed, micro)
    assert found == pytest.approx(loss, rel=tolerance)
    assert gradients.keys() == packed_gradients.keys()
    largest = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        # a gradient that is zero but for rounding has no direction to compare
        scale = max(float(gradient.norm()), 1e-4 * largest)
        assert float((packed_gradients[name] - gradient).norm()) <= tolerance * scale, name


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples=micro_batches(pairs=True))
def test_loss_and_gradients_in_float64(name: str, folders: Callable[[str], Path], examples: list[Example]) -> None:
    if name not in _LOADED:
        backbone = Backbone(str(folders(name)))
        backbone.load()
        _LOADED[name] = double(backbone.train())
    require_equal(_LOADED[name], examples, 1e-10, micro=3)


_LOADED: dict[str, Backbone] = {}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("change", ["none", "lora", "checkpointing"])
@pytest.mark.parametrize("micro", [1, 3, 4])
def test_loss_and_gradients_in_float32(name: str, micro: int, change: str, folders: Callable[[str], Path]) -> None:
    torch.manual_seed(0)
    lora = LoRA(r=2, alpha=4, dropout=0.0) if change == "lora" else None
    backbone = Backbone(str(folders(name)), lora=lora, gradient_checkpointing=change == "checkpointing")
    backbone.load()
    backbone.train()
    if lora:
        for parameter_name, parameter in backbone.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.3)
    generator = torch.Generator().manual_seed(1)
    prefix = _draw(20, generator)
    examples = [
        Example(
            str(n),
            prefix + _draw(3 * n, generator) + _draw(1, generator),
            (_draw(5 + 7 * n, generator), _draw(30 - 5 * n, generator)),
            (0.5 + n / 4,) * 2,
            (-3.0 * n, -40.0),
        )
        for n in range(4)
    ]
    require_equal(backbone, examples, 1e-5, micro)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_last_layer_computes_what_is_read_alone(name: str, folders: Callable[[str], Path]) -> None:
    backbone = Backbone(str(folders(name)))
    backbone.load()
    places: list[int] = []
    for layer in backbone.network.model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, inputs: places.append(inputs[0].shape[1]))
    batch = packed([Example("a", (3,) * 9, ((4, 5, 6), (7, 8)))], 0)
    backbone.completion_logps(batch)
    assert places == [9 + 2 + 1, 1 + 2 + 1]


def test_a_copy_of_a_network_reads_its_own_last_layer(folders: Callable[[str], Path]) -> None:
    backbone = Backbone(str(folders("llama")))
    backbone.load()
    batch = packed([Example("a", (3, 9, 4), ((4, 5, 6), (7, 8)))], 0)
    copied = copy.deepcopy(backbone)
    before = copied.completion_logps(batch).detach()
    with torch.no_grad():
        backbone.network.model.layers[-1].input_layernorm.weight.fill_(3.0)
    assert torch.equal(copied.completion_logps(batch), before)
    assert not torch.equal(backbone.completion_logps(batch), before)


def _draw(count: int, generator: torch.Generator) -> tuple[int, ...]:
    return tuple(torch.randint(3, 300, (count,), generator=generator).tolist())


def test_a_saved_model_does_not_name_our_attention(folders: Callable[[str], Path], tmp_path: Path) -> None:
    backbone = Backbone(str(folders("llama")))
    backbone.load()
    backbone.save(tmp_path / "saved")
    assert "guardreasoner" not in (tmp_path / "saved" / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").config._attn_implementation == "sdpa"


def test_a_network_that_cannot_takes_plain_rows_and_says_so(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "gemma2"))
    from transformers import Gemma2Config

    config = Gemma2Config(**SHAPE, head_dim=8, attn_logit_softcapping=50.0, final_logit_softcapping=None)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with caplog.at_level(logging.INFO, "guardreasoner"):
        module = RSFTModule(Backbone(str(folder)))
        quiet_trainer(fast_dev_run=True).fit(module, ReasoningDataModule(TinySource(), batch_size=4, epochs=1))
    assert "this network does not support packed rows: each completion gets a row of its own" in caplog.messages
    with pytest.raises(InputError, match="does not support packed rows"):
        module.backbone.completion_logps(packed([Example("a", (3, 4), ((5,),))], 0))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_layers_give_the_same_loss_and_gradients(folders: Callable[[str], Path]) -> None:
    plain, compiled = (Backbone(str(folders("llama")), compile=compile) for compile in (False, True))
    generator = torch.Generator().manual_seed(1)
    prefix = _draw(20, generator)
    examples = [Example(str(n), prefix + _draw(4 + n, generator), (_draw(9, generator),)) for n in range(3)]
    results = []
    for backbone in (plain, compiled):
        backbone.load()
        backbone.train()
        results.append(step(backbone, examples, packed, 1))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_a_family_that_is_not_tested_takes_plain_rows(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "olmo2"))
    AutoModelForCausalLM.from_config(Olmo2Config(**SHAPE, pad_token_id=0)).save_pretrained(folder)
    backbone = Backbone(str(folder))
    backbone.load()
    assert not backbone.supports_packing
    example = Example("a", (3, 9, 4), ((4, 5, 6), (7, 8)))
    assert backbone(two_row([example], 0)).shape == (5,)
    with pytest.raises(InputError, match="does not support packed rows"):
        backbone(packed([example], 0))


class BytesWritten(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations allocate."""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        if not any(result.alias_info for result in function._schema.returns):
            self.total += sum(t.nbytes for t in torch.utils._pytree.tree_leaves(results) if isinstance(t, Tensor))
        return results


def test_the_backward_pass_is_linear_in_the_number_of_segments() -> None:
    totals = []
    for pairs in (8, 32):  # a prompt and two completions of 4 tokens each
        spans = [(4 * n, 4 * n + 4, () if n % 3 == 0 else (n - n % 3,)) for n in range(3 * pairs)]
        states = [torch.randn(1, 2, 12 * pairs, 8, requires_grad=True) * 1 for _ in range(3)]
        attended = PackedContext([Segment(*span) for span in spans]).attend(
            0, states[0], states[1], states[2], None, None
        )
        with BytesWritten() as written:
            attended.sum().backward()
        totals.append(written.total)
    assert totals[1] == pytest.approx(4 * totals[0], rel=0.05)


def test_rotations_that_depend_on_the_length_take_plain_rows(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "longrope"))
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    config = Phi3Config(**SHAPE, pad_token_id=0, original_max_position_embeddings=24, rope_parameters=rope)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    backbone = Backbone(str(folder))
    backbone.load()
    assert not backbone.supports_packing
