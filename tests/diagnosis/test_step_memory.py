"""Memory of a training step by part, with numbers derived by hand."""

from functools import partial
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from guardreasoner.diagnosis.memory_trace import COPIES
from guardreasoner.diagnosis.model_shape import PUBLISHED
from guardreasoner.diagnosis.step_memory import (
    ACTIVATIONS,
    GRADIENTS,
    REFERENCE,
    WEIGHTS,
    four_bit_bytes,
    optimizer_bytes,
    optimizer_runs,
    put_on_meta,
    set_mode,
    trace_step,
)
from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, Example, StepCollator
from guardreasoner.model.lora import LoRA
from guardreasoner.model.packing import packed
from tests.support.planned import LAYER, SHAPE

COUNT = 100 * 32 + 4 * LAYER + 32


def batches(examples: int = 2, tokens: int = 200, prefix: int = 0) -> list[Batch]:
    """Return one micro-batch per example: a prompt of 50 tokens after a common prefix, and two completions."""
    made = [Example(str(n), (9,) * prefix + (n + 1,) * 50, ((1,) * tokens, (2,) * tokens)) for n in range(examples)]
    return StepCollator(0, 1, packed)(made).batches


def traced(
    frozen: str | None = None, mixed: torch.dtype | None = None, prefix: int = 0, **options: Any
) -> dict[str, float]:
    """Return the bytes by part of a step of a small Llama."""
    backbone = Backbone("x", **options)
    put_on_meta(backbone, SHAPE, options.get("lora"))
    set_mode(backbone, dropout=False)
    return dict(trace_step(backbone, batches(prefix=prefix), frozen=frozen, mixed=mixed))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
    ],
)
def test_published_shapes_have_the_published_number_of_parameters(name: str, count: int) -> None:
    assert put_on_meta(Backbone("x"), LlamaConfig(**PUBLISHED[name]), None).base == count


def test_an_adapter_has_two_matrices_of_its_rank_per_layer() -> None:
    parameters = put_on_meta(Backbone("x"), SHAPE, LoRA(r=8))
    widths = 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64)
    assert (parameters.base, parameters.adapter) == (COUNT, 4 * 8 * widths)
    assert parameters.trained == parameters.adapter
    assert parameters.trained_bytes == 4 * parameters.adapter


def test_all_weights_have_a_gradient_beside_the_second_micro_batch() -> None:
    parts = traced()
    rotary = 2 * 4 * 4  # two buffers of frequencies
    assert parts[WEIGHTS] - 4 * COUNT in (rotary, 0, rotary // 2)
    assert parts[GRADIENTS] == pytest.approx(4 * COUNT, rel=0.2)


def test_four_bit_weights_take_half_a_byte_and_their_scales() -> None:
    assert four_bit_bytes(64 * 256) == 8192 + 256 + 4
    parts = traced(lora=LoRA(), quantization="4bit")
    linear = 4 * (four_bit_bytes(32 * 32) * 2 + four_bit_bytes(32 * 16) * 2 + four_bit_bytes(32 * 64) * 3)
    adapter = 4 * 4 * 16 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    rest = 4 * (100 * 32 + 9 * 32)  # embedding and norms, float32
    assert parts[WEIGHTS] == pytest.approx(linear + adapter + rest, abs=64)


def test_checkpointing_saves_activations() -> None:
    assert traced(gradient_checkpointing=True)[ACTIVATIONS] < 0.6 * traced()[ACTIVATIONS]


def test_half_precision_halves_weights() -> None:
    assert traced(dtype="bfloat16")[WEIGHTS] == pytest.approx(traced()[WEIGHTS] / 2, abs=64)


def test_mixed_precision_copies_the_weights_of_each_layer() -> None:
    products = 2 * 4 * (LAYER - 2 * 32)  # all but the norms, in 2 bytes
    parts, whole = traced(mixed=torch.bfloat16), traced()
    assert parts[COPIES] == products
    assert parts[WEIGHTS] == whole[WEIGHTS]
    assert parts[ACTIVATIONS] < whole[ACTIVATIONS]
    assert COPIES not in whole
    # the pass of the common prefix has copies of its own, except after the keys and values of the last layer
    after = 2 * (2 * 32 * 32 + 3 * 32 * 64)
    assert traced(mixed=torch.bfloat16, prefix=20)[COPIES] == 2 * products - after
    # a layer that is computed again has them only meanwhile
    assert traced(mixed=torch.bfloat16, gradient_checkpointing=True).get(COPIES, 0) <= products / 4


def test_mixed_precision_only_copies_float32_weights() -> None:
    assert COPIES not in traced(mixed=torch.bfloat16, dtype="bfloat16")
    adapter = put_on_meta(Backbone("x"), SHAPE, LoRA()).adapter
    for options in ({"dtype": "bfloat16"}, {"quantization": "4bit"}):
        parts = traced(mixed=torch.bfloat16, lora=LoRA(), **options)
        assert parts[COPIES] == pytest.approx(2 * adapter, rel=0.1)  # adapters stay float32


def test_gradients_that_are_not_kept_take_no_memory() -> None:
    backbone = Backbone("x")
    put_on_meta(backbone, SHAPE, None)
    parts = trace_step(backbone, batches(), keeps_gradients=False)
    assert parts[GRADIENTS] == 0


def test_a_frozen_copy_takes_its_weights_and_a_frozen_adapter_only_the_adapter() -> None:
    assert traced(frozen="FrozenCopy")[REFERENCE] == 4 * COUNT
    adapter = put_on_meta(Backbone("x"), SHAPE, LoRA()).adapter
    assert traced(frozen="FrozenAdapter", lora=LoRA())[REFERENCE] == 4 * adapter
    assert REFERENCE not in traced()


def test_without_training_there_are_no_gradients() -> None:
    backbone = Backbone("x")
    put_on_meta(backbone, SHAPE, None)
    backbone.eval()
    parts = trace_step(backbone, batches()[:1], trains=False)
    assert parts[GRADIENTS] == 0
    assert parts[ACTIVATIONS] < 0.5 * traced()[ACTIVATIONS]


def test_an_optimizer_that_does_not_run_here_is_taken_for_adam() -> None:
    def for_a_gpu(parameters: object) -> torch.optim.Optimizer:
        raise RuntimeError("no GPU")

    assert optimizer_runs(partial(torch.optim.SGD, lr=0.1), torch.float32)
    assert not optimizer_runs(for_a_gpu, torch.float32)
    assert optimizer_bytes(for_a_gpu, torch.bfloat16) == 8


def test_the_state_of_an_optimizer_is_measured() -> None:
    adam, sgd = partial(torch.optim.AdamW, lr=0.1), partial(torch.optim.SGD, lr=0.1)
    assert optimizer_bytes(adam, torch.float32) == 8
    assert optimizer_bytes(adam, torch.bfloat16) == 4
    assert optimizer_bytes(sgd, torch.float32) == 0
    assert optimizer_bytes(partial(sgd, momentum=0.9), torch.float32) == 4


def test_a_config_with_impossible_numbers_is_one_line() -> None:
    shape = LlamaConfig(**SHAPE.to_dict())
    shape.num_key_value_heads = 0
    with pytest.raises(InputError, match=r"x: its config\.json cannot be used: "):
        put_on_meta(Backbone("x"), shape, None)


def test_a_network_without_packed_rows_is_refused() -> None:
    shape = LlamaConfig(**{**SHAPE.to_dict(), "attention_dropout": 0.1})
    with pytest.raises(InputError, match="packed rows"):
        put_on_meta(Backbone("x"), shape, None)
