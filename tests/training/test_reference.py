from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import StepCollator, two_row
from guardreasoner.model.log_probs import CompletionLogps, sequence_logps
from guardreasoner.model.lora import LoRA
from guardreasoner.training.losses import margin
from guardreasoner.training.reference import FrozenAdapter, FrozenCopy, Precomputed, Reference
from tests.support.architectures import make_adapter, make_model_folder
from tests.support.tiny import batch_of, examples, load, make_tiny_base, weights

KINDS = ["copy", "adapter", "stored"]


def prepared(kind: str, backbone: Backbone, folder: Path) -> Reference:
    reference: Reference = {
        "copy": FrozenCopy,
        "adapter": FrozenAdapter,
        "stored": lambda: Precomputed(str(folder / "stored"), batch_size=2),
    }[kind]()
    reference.prepare(backbone, examples(backbone.prompt_tokenizer))
    return reference


def policy_logps(backbone: Backbone, batch: Any) -> torch.Tensor:
    return sequence_logps(backbone.completion_logps(batch), batch.sequence, batch.sequences)


def train(backbone: Backbone, steps: int = 3) -> None:
    """Move the policy far."""
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        backbone.completion_logps(batch_of(backbone.prompt_tokenizer)).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_adapted_models_numbers(kind: str, tiny_adapter: Path, tmp_path: Path) -> None:
    backbone = load(tiny_adapter)
    batch = batch_of(backbone.prompt_tokenizer)
    expected = policy_logps(backbone, batch).detach()
    found = prepared(kind, backbone, tmp_path).sequence_logps(batch)
    assert not found.requires_grad
    torch.testing.assert_close(found.to(expected), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_the_policy_and_not_the_reference(kind: str, tiny_adapter: Path, tmp_path: Path) -> None:
    backbone = load(tiny_adapter)
    reference = prepared(kind, backbone, tmp_path)
    batch = batch_of(backbone.prompt_tokenizer)
    before = reference.sequence_logps(batch)
    base = {name: value for name, value in weights(backbone).items() if ".default." not in name}
    train(backbone)
    assert torch.equal(reference.sequence_logps(batch), before)
    assert not torch.allclose(policy_logps(backbone, batch).to(before), before, atol=0.1)
    # Asking the reference leaves the policy trainable and the rest alone: base weights, and a second adapter.
    assert {n for n, p in backbone.named_parameters() if p.requires_grad} == {
        n for n, _ in backbone.named_parameters() if ".default." in n
    }
    after = weights(backbone)
    assert all(torch.equal(value, after[name]) for name, value in base.items())


@pytest.mark.parametrize("kind", ["copy", "adapter"])
@pytest.mark.parametrize("model", ["adapter with weights", "new adapter"])
def test_the_margin_is_exactly_zero_before_the_first_step(
    kind: str, model: str, tiny_base: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    backbone = load(tiny_adapter) if model == "adapter with weights" else load(tiny_base, lora=LoRA(r=2))
    batch = batch_of(backbone.prompt_tokenizer)
    policy, frozen = policy_logps(backbone, batch), prepared(kind, backbone, tmp_path).sequence_logps(batch)
    logps = CompletionLogps(policy, batch.lengths, frozen)
    chosen, rejected = (logps.select(batch.number == number) for number in (0, 1))
    assert margin(chosen, rejected).tolist() == [0.0] * len(batch.ids)


def test_a_model_without_an_adapter_takes_a_copy_or_stored_numbers(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base)
    with pytest.raises(InputError, match="FrozenAdapter needs a model with an adapter") as error:
        prepared("adapter", backbone, tmp_path)
    assert "FrozenCopy" in (error.value.hint or "")
    batch = batch_of(backbone.prompt_tokenizer)
    references = [prepared(kind, backbone, tmp_path) for kind in ("copy", "stored")]
    before = policy_logps(backbone, batch).detach()
    train(backbone)
    for reference in references:
        torch.testing.assert_close(reference.sequence_logps(batch).to(before), before, rtol=1e-5, atol=1e-5)


def test_a_saved_adapter_does_not_hold_the_reference(tiny_adapter: Path, tmp_path: Path) -> None:
    backbone = load(tiny_adapter)
    prepared("adapter", backbone, tmp_path)
    train(backbone)
    backbone.save(tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_dir() or "reference" in path.name]
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert saved.keys() == load_file(tiny_adapter / "adapter_model.safetensors").keys()
    batch = batch_of(backbone.prompt_tokenizer)
    assert torch.equal(policy_logps(load(tmp_path / "out"), batch), policy_logps(backbone, batch))


def test_stored_numbers_are_read_again(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = prepared("stored", load(tiny_base), tmp_path)
    (file,) = (tmp_path / "stored").iterdir()
    values = load_file(file)["logps"]
    assert (values.shape, values.dtype) == ((10,), torch.float64)
    monkeypatch.delattr(Precomputed, "_compute")
    second = prepared("stored", load(tiny_base), tmp_path)
    batch = batch_of(load(tiny_base).prompt_tokenizer)
    assert torch.equal(second.sequence_logps(batch), first.sequence_logps(batch))
    assert not caplog.records


def test_stored_numbers_are_found_for_any_batch(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base)
    reference = prepared("stored", backbone, tmp_path)
    step = StepCollator(backbone.prompt_tokenizer.padding, 2)(examples(backbone.prompt_tokenizer))
    for batch in step.batches:
        expected = policy_logps(backbone, batch).detach().double()
        torch.testing.assert_close(reference.sequence_logps(batch), expected, rtol=1e-5, atol=1e-5)


def test_pairs_of_one_record_have_values_of_their_own(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base)
    example = examples(backbone.prompt_tokenizer, 1)[0]
    chosen, rejected = example.completions
    other = (*rejected[:-2], rejected[-1], rejected[-2])  # as long, and another text
    pairs = [replace(example, id="a#1"), replace(example, id="a#2", completions=(chosen, other))]
    reference = Precomputed(str(tmp_path / "stored"))
    reference.prepare(backbone, pairs)
    for order in (pairs, pairs[::-1]):
        batch = two_row(order, backbone.prompt_tokenizer.padding)
        expected = policy_logps(backbone, batch).detach().double()
        torch.testing.assert_close(reference.sequence_logps(batch), expected, rtol=1e-5, atol=1e-5)
    values = reference.sequence_logps(two_row(pairs, backbone.prompt_tokenizer.padding))
    assert values[2] != values[3]


def test_other_weights_pairs_or_precision_are_stored_apart(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    for backbone in (load(tiny_base), load(tiny_adapter), load(tiny_base, dtype="bfloat16")):
        prepared("stored", backbone, tmp_path)
    backbone = load(tiny_base)
    Precomputed(str(tmp_path / "stored")).prepare(backbone, examples(backbone.prompt_tokenizer, 4))
    assert len(list((tmp_path / "stored").iterdir())) == 4


def test_four_bit_weights_are_stored_apart(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base", hidden_size=64)
    for quantization in (None, "4bit"):
        prepared("stored", load(base, lora=LoRA(r=2), quantization=quantization), tmp_path)
    assert len(list((tmp_path / "stored").iterdir())) == 2


def other_model(file: Path, tiny_adapter: Path) -> None:
    prepared("stored", load(tiny_adapter), file.parents[1])
    (other,) = set(file.parent.iterdir()) - {file}
    other.replace(file)


def other_value(file: Path, tiny_adapter: Path) -> None:
    with safe_open(file, "pt") as opened:
        metadata, values = opened.metadata(), opened.get_tensor("logps").clone()
    values[5] += 1e-9
    save_file({"logps": values}, file, metadata)


def truncated(file: Path, tiny_adapter: Path) -> None:
    file.write_bytes(file.read_bytes()[:20])


@pytest.mark.parametrize("damage", [other_model, other_value, truncated])
def test_damaged_values_are_computed_again(
    damage: Callable[[Path, Path], None],
    tiny_base: Path,
    tiny_adapter: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prepared("stored", load(tiny_base), tmp_path)
    (file,) = (tmp_path / "stored").iterdir()
    before = load_file(file)["logps"].clone()
    damage(file, tiny_adapter)
    prepared("stored", load(tiny_base), tmp_path)
    assert torch.equal(load_file(file)["logps"], before)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"{file} is damaged: the reference values are computed again"


@pytest.mark.parametrize("config", [{"target_modules": ["q_proj", "embed_tokens"]}, {"modules_to_save": ["lm_head"]}])
def test_a_second_adapter_copies_every_kind_of_weight(config: dict[str, Any], tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(make_adapter(tiny_base, tmp_path / "adapter", **config))
    batch = batch_of(backbone.prompt_tokenizer)
    before = policy_logps(backbone, batch).detach()
    reference = prepared("adapter", backbone, tmp_path)
    torch.testing.assert_close(reference.sequence_logps(batch), before, rtol=1e-5, atol=1e-5)
    train(backbone)
    assert not torch.allclose(policy_logps(backbone, batch), before, atol=0.1)
    torch.testing.assert_close(reference.sequence_logps(batch), before, rtol=1e-5, atol=1e-5)


def test_an_adapter_that_trains_biases_has_no_second_adapter(tiny_base: Path, tmp_path: Path) -> None:
    qwen = make_model_folder("Qwen2", tiny_base, tmp_path / "qwen", head_dim=8)
    backbone = load(make_adapter(qwen, tmp_path / "adapter", bias="lora_only"))
    with pytest.raises(InputError, match="biases"):
        prepared("adapter", backbone, tmp_path)


def test_nothing_is_stored_of_a_broken_model(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base)
    with torch.no_grad():
        next(backbone.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="log π_ref of record train/00 is nan"):
        prepared("stored", backbone, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_two_examples_that_cannot_be_told_apart_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base)
    example = examples(backbone.prompt_tokenizer, 1)[0]
    with pytest.raises(InputError, match="occurs twice"):
        Precomputed(str(tmp_path / "stored")).prepare(backbone, [example, example])
