"""Steps, tokens, memory of mining, of several processes, and changes of a plan, with numbers derived by hand."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from guardreasoner.diagnosis.data_sizes import CharacterTokenizer, read_sizes
from guardreasoner.diagnosis.memory_trace import COPIES
from guardreasoner.diagnosis.model_shape import ModelShape
from guardreasoner.diagnosis.run_plan import (
    ALLOCATOR,
    PROCESS,
    MemoryModel,
    Mining,
    Schedule,
)
from guardreasoner.diagnosis.sharded_memory import GATHERED, UNREDUCED
from guardreasoner.diagnosis.step_memory import ACTIVATIONS, CACHE, GRADIENTS, OPTIMIZER, OUTPUT, WEIGHTS
from guardreasoner.model.lora import LoRA
from guardreasoner.prompts import PromptFormat
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reasoning_data import ReasoningDataModule
from tests.support.planned import FULL, SHAPE, SIZES
from tests.support.tiny import COUNTS, TinySource


def model() -> MemoryModel:
    shape = ModelShape(SHAPE, "a test", None, None)
    return MemoryModel(shape, partial(torch.optim.AdamW, lr=0.1), lambda settings: Schedule(SIZES, 2, 2))


def test_steps_and_tokens_are_those_of_all_epochs() -> None:
    schedule = Schedule(SIZES, batch_size=2, epochs=2)
    assert (schedule.steps, schedule.steps_per_epoch) == (4, 2)
    assert schedule.tokens == 2 * (30 * 2 + 30 + 40 * 2 + 20 + 50 * 2 + 10)
    # each prompt once, without the shared prefix; the last token of a completion predicts nothing
    assert schedule.packed_tokens == 2 * (10 + 28 + 20 + 18 + 30 + 8)
    assert schedule.predicted_tokens == 2 * 60
    assert Schedule(SIZES, 2, 2, limit=3).steps == 3


def test_the_largest_step_has_the_longest_example_first() -> None:
    largest = Schedule(SIZES, batch_size=3, epochs=1).largest(1, None)
    assert [example.length for example in largest] == [55, 50, 50]
    assert len({example.prompt[:20] for example in largest}) == 1
    assert len({example.prompt[:21] for example in largest}) == 3


def test_longer_examples_are_left_out_and_counted() -> None:
    short = SIZES.shortened(50)
    assert (short.prompts, short.too_long) == ([30, 40], 1)


def test_characters_stand_in_for_a_tokenizer() -> None:
    tokenizer = CharacterTokenizer(PromptFormat(), characters=4)
    first, second = tokenizer.completions(["x" * 40, "x" * 39 + "y"])
    assert len(first) == 11
    assert first[:9] == second[:9]
    assert first[9] != second[9]
    assert len(tokenizer.completions(["x"])[0]) == 2


def test_sizes_come_from_the_data_of_the_config() -> None:
    tokenizer = CharacterTokenizer(PromptFormat(), characters=4)
    sizes = read_sizes(ReasoningDataModule(TinySource(), max_length=4096), tokenizer)
    assert len(sizes.prompts) == COUNTS["train"]
    assert sizes.prefix > 100  # the instruction
    assert sizes.characters == 4


def test_pairs_without_rollouts_are_a_share_of_the_records() -> None:
    tokenizer = CharacterTokenizer(PromptFormat(), characters=4)
    data = PreferenceDataModule(TinySource(), ["nowhere"], max_length=4096)
    sizes = read_sizes(data, tokenizer, hard_share=1.0)
    assert len(sizes.prompts) == COUNTS["train"]
    assert all(chosen == rejected for chosen, rejected in sizes.completions)
    assert "estimated as 1 of the records" in sizes.source


@pytest.mark.parametrize(
    ("bound", "tokens"),
    [
        (None, 5 * 64 + 10 * 128),  # 30 own prompt tokens take a page of 64, 100 new ones take two
        (500, 2 * 64 + 4 * 128),  # a prompt and its two outputs have 230 tokens
        (10, 64 + 2 * 128),  # the outputs of one prompt always run
    ],
)
def test_the_cache_of_mining_holds_every_output_at_its_longest(bound: int | None, tokens: int) -> None:
    mining = Mining(
        k=2,
        batch_size=11,
        max_new_tokens=100,
        max_cache_tokens=bound,
        workers=3,
        dtype="bfloat16",
        page=64,
        prefill=2048,
    )
    parts = model().mining(FULL, mining)
    assert parts[CACHE] == 3 * tokens * (2 * 4 * 2 * 8 * 2)  # keys and values of 4 layers, 2 heads of 8, 2 bytes


def test_on_a_gpu_the_allocator_holds_a_share_of_all_tensors() -> None:
    parts = dict(model().memory(replace(FULL, device="gpu")).parts)
    process, allocator = parts.pop(PROCESS), parts.pop(ALLOCATOR)
    assert process == 0.6e9
    assert allocator == pytest.approx(0.05 * sum(parts.values()))


@pytest.mark.parametrize(("lora", "share"), [(None, 0.45), (LoRA(), 0.75)])
def test_on_a_cpu_the_allocator_holds_a_share_of_what_a_step_frees(lora: LoRA | None, share: float) -> None:
    parts = model().memory(replace(FULL, lora=lora)).parts
    assert parts[PROCESS] == 0.65e9
    assert parts[ALLOCATOR] == pytest.approx(share * (parts[ACTIVATIONS] + parts.get(OUTPUT, 0)))


def test_the_nearest_change_is_the_one_that_keeps_the_result() -> None:
    whole = model().memory(FULL).peak
    changes, enough = model().changes(FULL, whole - 1000)
    assert enough
    assert [change.flags for change in changes] == ["--data.micro_batch_size 1"]
    assert changes[0].peak < whole


@pytest.mark.slow
def test_an_impossible_limit_lists_all_changes() -> None:
    changes, enough = model().changes(FULL, 1000)
    assert not enough
    assert any("lora" in change.flags for change in changes)
    assert any("quantization" in change.flags for change in changes)


@pytest.mark.slow
def test_an_adapter_needs_no_lora_change() -> None:
    changes, _ = model().changes(replace(FULL, lora=LoRA()), 1000)
    assert not any("backbone.lora" in change.flags for change in changes)


def test_sharded_weights_are_divided_by_the_processes() -> None:
    sharded = replace(FULL, device="gpu", world=4, reference="Precomputed", sharded="bfloat16")
    memory = model().memory(sharded)
    phases = {name: dict(parts) for name, parts in memory.phases.items()}
    alone = model().memory(replace(FULL, device="gpu")).parts
    training = phases["training"]
    for part in (WEIGHTS, OPTIMIZER):
        assert training[part] == pytest.approx(alone[part] / 4, rel=0.01)
    assert training[GRADIENTS] == memory.parameters.trained
    assert "DDP buckets" not in training
    assert training[ACTIVATIONS] < alone[ACTIVATIONS]  # in bfloat16
    assert phases["reference values"][GATHERED] == training[GATHERED] > 0
    assert phases["reference values"][WEIGHTS] == training[WEIGHTS]
    assert UNREDUCED in training
    assert not {UNREDUCED, GRADIENTS} & phases["reference values"].keys()


@pytest.mark.slow
def test_changes_of_a_sharded_fit_keep_one_data_type_without_quantization() -> None:
    changes, _ = model().changes(replace(FULL, device="gpu", world=4, sharded="bfloat16"), 1000)
    flags = " ".join(change.flags for change in changes)
    assert "lora" in flags
    assert "dtype" not in flags
    assert "qlora" not in flags
    assert "quantization" not in flags
    shares = replace(FULL, device="gpu", world=4, sharded="bfloat16", dtype="bfloat16")
    assert not any("lora" in change.flags for change in model().changes(shares, 1000)[0])


def test_mixed_precision_lowers_the_activations_of_both_phases() -> None:
    mixed = replace(FULL, device="gpu", reference="Precomputed", mixed="bfloat16")
    phases = model().memory(mixed).phases
    assert phases["training"][COPIES] > 0
    assert (
        phases["reference values"][ACTIVATIONS]
        < model().memory(replace(mixed, mixed=None)).phases["reference values"][ACTIVATIONS]
    )
