"""GRPO against a naive implementation that knows one sequence at a time, and small fits."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.optim import SGD, AdamW

from guardreasoner.callbacks.throughput import Throughput
from guardreasoner.errors import InputError
from guardreasoner.generators import Generator, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.plain import PlainGenerator
from guardreasoner.mining import Pairing
from guardreasoner.mining.grading import Grades
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.lora import LoRA
from guardreasoner.records import Record, Split
from guardreasoner.training.group_sampler import Group, GroupSampler
from guardreasoner.training.grpo import GRPOModule
from guardreasoner.training.grpo_loss import Normalization, constant, sequence_mean, token_mean
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.prompt_data import PromptDataModule
from guardreasoner.training.reference import FrozenAdapter, FrozenCopy
from tests.support.tiny import TinySource, load, quiet_trainer, weights

K = 3
TEMPERATURE = 0.8
REWARDS = (1.0, 0.0, 0.5, 1 / 3, 1 / 3, 1 / 3, 0.0, 0.0, 1.0)
"""Of three outputs of three prompts; the second group has no signal."""
LEARNING_RATE = 0.05


class Watch(Callback):
    """Keeps what was logged at each step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})


class Listed:
    """Rewards that come from a list, whatever the output says."""

    def __init__(self, rewards: Iterable[float]) -> None:
        self.rewards = cycle(rewards)

    def __call__(self, grades: Grades) -> float:
        return next(self.rewards)


def engine(backbone: Backbone) -> LocalGenerator:
    return LocalGenerator(backbone, max_new_tokens=7, temperature=TEMPERATURE)


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=LEARNING_RATE)


def data(**changes: Any) -> PromptDataModule:
    settings: dict[str, Any] = {"batch_size": 3, "epochs": 1, "validation_share": 0.0}
    return PromptDataModule(TinySource(3), **(settings | changes))


def fitted(backbone: Backbone, prompts: PromptDataModule, **changes: Any) -> list[dict[str, float]]:
    watch = Watch()
    settings = {"generator": engine, "k": K, "optimizer": sgd, "reward": Listed(REWARDS), "max_grad_norm": 0.0}
    quiet_trainer(callbacks=[watch]).fit(GRPOModule(backbone, **(settings | changes)), datamodule=prompts)
    return watch.rows


def sampled(backbone: Backbone, prompts: PromptDataModule) -> list[Group]:
    """Return the groups that a fit of the same model samples in its first step."""
    prompts.trainer = quiet_trainer()
    order = prompts._sampler().step(0)
    sampler = GroupSampler(engine(backbone), K, 0, Listed(REWARDS))
    return sampler.sample([prompts.train[index] for index in order], prompts.labels, 0, prompts.trainer)


def tempered_logps(network: Any, prompt: Sequence[int], output: Sequence[int]) -> Tensor:
    """Return log π of each token at the sampling temperature, from full logits of one sequence without padding."""
    logits = network(input_ids=torch.tensor([[*prompt, *output]])).logits[0] / TEMPERATURE
    logps = logits.log_softmax(-1)
    return torch.stack([logps[len(prompt) - 1 + place, token] for place, token in enumerate(output)])


def naive_loss(
    network: Any, groups: Sequence[Group], sampling: Any, beta: float, normalization: Normalization, unbiased: bool
) -> Tensor:
    """Return the loss as the papers write it, output by output and token by token; the reference is ``sampling``."""
    total = torch.zeros((), dtype=torch.float64)
    lengths = [len(output) for group in groups for output in group.outputs]
    for group in groups:
        rewards = torch.tensor(group.rewards, dtype=torch.float64)
        for output, reward in zip(group.outputs, rewards, strict=True):
            advantage = (reward - rewards.mean()) / (rewards.std() + 1e-4)
            place = group.prompt.prompt
            new = tempered_logps(network, place, output)
            with torch.no_grad():
                old = tempered_logps(sampling, place, output)
            divide = {
                token_mean: sum(lengths),
                sequence_mean: len(lengths) * len(output),
                constant: len(lengths) * 7,
            }[normalization]
            for one, before in zip(new, old, strict=True):
                ratio = (one - before).exp()
                clipped = min(max(ratio, torch.tensor(0.8).double()), torch.tensor(1.2).double())
                kl = (before - one).exp() - (before - one) - 1
                kl = ratio * kl if unbiased else kl
                total = total + (beta * kl - min(ratio * advantage, clipped * advantage)) / divide
    return total


def test_the_epoch_counts_steps_of_the_data_not_updates(tiny_base: Path) -> None:
    watch = Watch()
    settings: dict[str, Any] = {"generator": engine, "k": K, "optimizer": sgd, "reward": Listed(REWARDS), "updates": 2}
    trainer = quiet_trainer(callbacks=[Throughput(), watch])
    trainer.fit(GRPOModule(load(tiny_base), **settings), datamodule=data(batch_size=1, epochs=2))
    steps = len(watch.rows)
    assert (trainer.global_step, watch.rows[-1]["epoch"]) == (2 * steps, 2)


@pytest.mark.parametrize(
    ("normalization", "beta", "unbiased", "micro"),
    [
        (token_mean, 0.0, True, None),
        (token_mean, 0.3, True, 1),
        (sequence_mean, 0.3, False, None),
        (constant, 0.3, True, 2),
    ],
)
def test_two_updates_equal_those_of_the_naive_loss(
    normalization: Normalization, beta: float, unbiased: bool, micro: int | None, tiny_base: Path
) -> None:
    """Weights agree to 1e-6 of the largest change, losses to 1e-6; in the second update, ratios are not 1."""
    backbone = load(tiny_base, double=True)
    prompts = data(micro_batch_size=micro)
    changes = {"beta": beta, "normalization": normalization, "unbiased_kl": unbiased}
    (row,) = fitted(backbone, prompts, updates=2, **changes)
    groups = sampled(load(tiny_base, double=True), prompts)
    assert [reward for group in groups for reward in group.rewards] == list(REWARDS)
    naive, first = load(tiny_base, double=True), load(tiny_base, double=True)
    losses = []
    for update in range(2):
        naive.zero_grad()
        loss = naive_loss(naive.network, groups, first.network, beta, normalization, unbiased)
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():  # the cosine schedule over two updates: 1, then 1/2
            for parameter in naive.parameters():
                parameter -= LEARNING_RATE * (1 - update / 2) * parameter.grad
    assert row["train/loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)
    assert losses[0] != losses[1]
    start, found, wanted = weights(first), weights(backbone), weights(naive)
    moved = max(float((wanted[name] - start[name]).abs().max()) for name in wanted)
    assert moved > 1e-4
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6 * moved, msg=name)


def test_what_a_step_logs(tiny_base: Path) -> None:
    backbone = load(tiny_base, double=True)
    prompts = data()
    (row,) = fitted(backbone, prompts, beta=0.1)
    groups = sampled(load(tiny_base, double=True), prompts)
    lengths = [len(output) for group in groups for output in group.outputs]
    assert row["train/reward"] == pytest.approx(sum(REWARDS) / 9)
    assert row["train/no_signal"] == pytest.approx(1 / 3)
    assert row["train/unparsed"] == 1  # random weights write no verdict
    assert row["train/length"] == pytest.approx(sum(lengths) / 9)
    assert row["train/generated_tokens"] == sum(group.tokens for group in groups)
    assert (row["train/kl"], row["train/clipped"]) == (0, 0)
    assert row["train/grad_norm"] > 0
    assert set(row) <= GRPOModule.LOGGED


def test_a_step_without_signal_changes_nothing(tiny_base: Path) -> None:
    backbone = load(tiny_base)
    before = weights(backbone)
    (row,) = fitted(backbone, data(), reward=Listed([1.0]))
    assert (row["train/no_signal"], row["train/loss"], row["train/grad_norm"]) == (1, 0, 0)
    assert all(torch.equal(value, before[name]) for name, value in weights(backbone).items())


def test_outputs_depend_on_seed_step_and_record_alone(tiny_base: Path) -> None:
    prompts = data()
    fitted(load(tiny_base), prompts)
    trainer, backbone = quiet_trainer(), load(tiny_base)
    examples = list(prompts.train)

    def outputs(seed: int, step: int, chosen: Sequence[Any]) -> dict[str, Any]:
        sampler = GroupSampler(engine(backbone), K, seed, Listed(REWARDS))
        return {group.prompt.id: group.outputs for group in sampler.sample(chosen, prompts.labels, step, trainer)}

    whole = outputs(0, 5, examples)
    assert outputs(0, 5, examples) == whole
    assert {name: found for one in examples for name, found in outputs(0, 5, [one]).items()} == whole
    assert outputs(0, 6, examples) != whole
    assert outputs(1, 5, examples) != whole
    mined = engine(backbone).generate(Request(one.id, one.prompt, "", (0,) * K) for one in examples)
    first = {ids for group in outputs(0, 0, examples).values() for ids in group}
    assert not {completion.ids for completion in mined} <= first


@pytest.mark.parametrize("make", [LocalGenerator, PlainGenerator])
def test_an_engine_gives_the_tokens_that_it_sampled(make: Callable[..., Generator], both_speeds: Path) -> None:
    backbone = load(both_speeds)
    prompts = data()
    prompts.prepare_inspection(backbone.prompt_tokenizer)
    sampler = GroupSampler(make(backbone, max_new_tokens=40), K, 1, Listed(REWARDS))
    examples = [item.example for item in prompts.items("train")]
    labels = {record.id: record.gold() for record, _ in prompts.records}
    groups = sampler.sample(examples, labels, 0, quiet_trainer())
    end = backbone.prompt_tokenizer.end
    outputs = [output for group in groups for output in group.outputs]
    ended = [output for output in outputs if end in output]
    assert ended
    assert all(output.index(end) == len(output) - 1 for output in ended)
    assert all(len(output) == 40 for output in outputs if end not in output)
    assert sum(group.tokens for group in groups) == sum(map(len, outputs)) - len(ended)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_only_the_adapter_is_trained(beta: float, tiny_base: Path) -> None:
    torch.manual_seed(0)
    backbone = load(tiny_base, lora=LoRA(r=2, alpha=4))
    before = weights(backbone)
    rows = fitted(backbone, data(epochs=2), beta=beta, optimizer=lambda p: AdamW(p, lr=0.01))
    changed = {name for name, value in before.items() if not torch.equal(value, weights(backbone)[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    if beta:
        assert rows[0]["train/kl"] == 0
        assert rows[1]["train/kl"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": -0.1}, "model.beta must be a number of at least 0, got -0.1"),
        ({"beta": float("nan")}, "model.beta must be"),
        ({"clip_low": -1.0}, "model.clip_low must be"),
        ({"updates": 0}, "model.updates must be at least 1, got 0"),
        ({"k": 1}, "model.k must be at least 2, got 1"),
        ({"reference": FrozenCopy()}, "model.reference: without effect at model.beta 0"),
        ({"generator": lambda backbone: LocalGenerator(backbone, temperature=0.0)}, "temperature must be above 0"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str, tiny_base: Path) -> None:
    with pytest.raises(InputError, match=message):
        GRPOModule(Backbone(str(tiny_base)), **changes)


def test_pairs_are_refused(tiny_base: Path, tiny_rollouts: Path) -> None:
    with pytest.raises(InputError, match="GRPOModule needs PromptDataModule, got PreferenceDataModule"):
        fitted(load(tiny_base), PreferenceDataModule(TinySource(), [str(tiny_rollouts)]))  # type: ignore[arg-type]


def test_a_frozen_adapter_needs_an_adapter(tiny_base: Path) -> None:
    with pytest.raises(InputError, match="FrozenAdapter needs a model with an adapter"):
        fitted(load(tiny_base), data(), beta=0.1, reference=FrozenAdapter())


def test_the_schedule_ends_with_the_last_update_of_max_steps(tiny_base: Path) -> None:
    module = GRPOModule(load(tiny_base), generator=engine, k=K, optimizer=sgd, reward=Listed(REWARDS), updates=2)
    trainer = quiet_trainer(max_steps=4)  # two of six loader steps
    trainer.fit(module, datamodule=data(batch_size=1, epochs=2))
    assert trainer.global_step == 4
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_options_of_pairs_have_no_effect(tiny_base: Path, tiny_rollouts: Path) -> None:
    class WithoutReasoning(TinySource):
        def records(self, split: Split) -> list[Record]:
            return [replace(record, reasoning=None) for record in super().records(split)]

    def ids(pairing: Pairing) -> list[str]:
        prompts = PromptDataModule(WithoutReasoning(), [str(tiny_rollouts)], pairing=pairing)
        prompts.prepare_inspection(Backbone(str(tiny_base)).prompt_tokenizer)
        return [record.id for record, _ in prompts.records]

    assert ids(Pairing(chosen="gold")) == ids(Pairing(chosen="all", rejected="all")) == ids(Pairing())
