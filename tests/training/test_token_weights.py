"""Weights of reasoning and answer tokens: where the answer begins, and the losses of both stages by hand."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from guardreasoner.errors import InputError
from guardreasoner.formats.qwen3_guard import Qwen3GuardGen
from guardreasoner.model.batch import Batch, Collator, Example, two_row
from guardreasoner.model.packing import packed
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reasoning_data import ReasoningDataModule
from guardreasoner.training.reference import FrozenCopy, Precomputed, Reference
from guardreasoner.training.rsft import RSFTModule
from guardreasoner.training.token_weights import TokenWeights
from tests.support.tiny import TinySource, load, naive_logps, quiet_trainer

WEIGHTS = TokenWeights(reasoning=0.5, answer=2.0)
PAIR = Example("a", (7, 8), ((1, 2, 3), (1, 3)), (1.5, 1.5), None, ((0.5, 0.5, 2.0), (0.5, 2.0)))
"""Two reasoning tokens and one answer token chosen, one of each rejected; α = 1.5."""


class FixedLogps(nn.Module):
    """A network that gives these log-probabilities to the five targets of ``PAIR``."""

    def forward(self, batch: Batch, prefix: Any = None) -> Tensor:
        return torch.tensor([-1.0, -2.0, -0.5, -1.5, -3.0], dtype=torch.float64)


class FixedReference(Reference):
    """A reference that gives −1 nat to each target."""

    def prepare(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def sequence_logps(self, batch: Batch) -> Tensor:
        weighted = batch.weighted(-torch.ones(len(batch.targets), dtype=torch.float64))
        return weighted.new_zeros(batch.sequences).index_add(0, batch.sequence, weighted)


@pytest.mark.parametrize("collate", [two_row, packed])
def test_the_loss_of_hsdpo_by_hand(collate: Collator) -> None:
    # log π(chosen) = 0.5 (−1 − 2) + 2 (−0.5) = −2.5, in the reference −3; log π(rejected) = 0.5 (−1.5) + 2 (−3) =
    # −6.75, in the reference −2.5. So the margin is 0.5 + 4.25 = 4.75, NLL(chosen) = 2.5 nats / 3 tokens, and
    # −log σ(0.1 · 4.75) = log(1 + e^{−0.475}) = 0.483589.
    module = HSDPOModule(FixedLogps(), FixedReference(), beta=0.1, sft_coef=2.0)  # type: ignore[arg-type]
    values = module._contributions(collate([PAIR], 0, 0), pairs=1)
    assert values["margin"].item() == pytest.approx(4.75)
    assert values["sft_loss"].item() == pytest.approx(2.5 / 3)
    assert math.log(1 + math.exp(-0.475)) == pytest.approx(0.483589, abs=1e-6)
    assert values["loss"].item() == pytest.approx(1.5 * 0.483589 + 2 * 2.5 / 3, abs=1e-5)


def test_the_loss_of_rsft_by_hand() -> None:
    # Σ w · NLL = 2.5 of the first completion and 6.75 of the second.
    module = RSFTModule(FixedLogps())  # type: ignore[arg-type]
    assert module._nll_sum(two_row([PAIR], 0)).item() == pytest.approx(2.5 + 6.75)


def test_a_batch_has_the_weights_in_the_order_of_its_targets() -> None:
    plain = Example("b", (7,), ((4, 5), (6,)))
    batch = two_row([plain, PAIR], 0)
    assert batch.targets.tolist() == [4, 5, 1, 2, 3, 6, 1, 3]
    assert batch.token_weight is not None
    assert batch.token_weight.tolist() == [1, 1, 0.5, 0.5, 2, 1, 0.5, 2]
    assert two_row([plain], 0).token_weight is None


ANSWER = "Answers:\nRequest: harmful\nCompletion: None\nResponse: None"


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        (f"It breaks a kettle.\n\n{ANSWER}", "It breaks a kettle."),
        (f"Answers: unclear so far.\n\n{ANSWER}\n", "Answers: unclear so far."),
        (ANSWER, ""),
        ("It never answers.", "It never answers."),
    ],
)
def test_the_answer_begins_after_the_reasoning(text: str, reasoning: str, tiny_base: Path) -> None:
    tokenizer = load(tiny_base).prompt_tokenizer
    (ids,) = tokenizer.completions([text])
    (weights,) = WEIGHTS.of(tokenizer, [text], [ids])
    count = weights.count(0.5)
    assert weights == (0.5,) * count + (2.0,) * (len(ids) - count)
    assert tokenizer.decode(ids[:count]) == reasoning
    if reasoning == text:
        assert count == len(ids)


def test_equal_weights_of_one_are_not_stored(tiny_base: Path) -> None:
    tokenizer = load(tiny_base).prompt_tokenizer
    assert TokenWeights().of(tokenizer, ["a"], tokenizer.completions(["a"])) == ()


def test_without_reasoning_all_tokens_are_the_answer(tiny_base: Path) -> None:
    tokenizer = load(tiny_base).prompt_tokenizer
    tokenizer.format = Qwen3GuardGen()
    ids = tokenizer.completions(["Safety: Safe"])
    assert set(WEIGHTS.of(tokenizer, ["Safety: Safe"], ids)[0]) == {2.0}


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.05)


def weighted_sum(network: Any, tokenizer: Any, example: Example, number: int) -> float:
    """Return Σ w · log π of a completion, token by token from full logits."""
    logps = naive_logps(network, example.prompt, example.completions[number])
    return float((logps * torch.tensor(example.token_weights[number])).sum())


@pytest.mark.parametrize("reference", [FrozenCopy, Precomputed])
def test_hsdpo_trains_with_weights(reference: Any, tiny_base: Path, tiny_rollouts: Path, tmp_path: Path) -> None:
    frozen = reference(str(tmp_path)) if reference is Precomputed else reference()
    pairs = PreferenceDataModule(
        TinySource(), [str(tiny_rollouts)], batch_size=15, epochs=2, validation_share=0.0, token_weights=WEIGHTS
    )
    backbone = load(tiny_base, double=True)
    module = HSDPOModule(backbone, frozen, optimizer=sgd, beta=0.1)
    trainer = quiet_trainer()
    trainer.fit(module, datamodule=pairs)
    start = load(tiny_base, double=True)
    with torch.no_grad():
        hand = [weighted_sum(start.network, start.prompt_tokenizer, pairs.train[index], 0) for index in range(15)]
        batch = two_row(list(pairs.train), start.prompt_tokenizer.padding)
        found = module.reference.sequence_logps(batch)[batch.number == 0]  # type: ignore[union-attr]
    assert found.tolist() == pytest.approx(hand, rel=1e-6)
    assert abs(float(trainer.callback_metrics["train/margin"])) > 1e-4


def test_rsft_trains_with_weights(tiny_base: Path) -> None:
    data = ReasoningDataModule(TinySource(), batch_size=24, epochs=1, token_weights=WEIGHTS)
    trainer = quiet_trainer()
    trainer.fit(RSFTModule(load(tiny_base, double=True), sgd), datamodule=data)
    start = load(tiny_base, double=True)
    with torch.no_grad():
        total = -sum(weighted_sum(start.network, start.prompt_tokenizer, data.train[index], 0) for index in range(24))
    tokens = sum(len(example.completions[0]) for example in data.train)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(total / tokens, rel=1e-6)


def test_stored_reference_values_belong_to_their_weights(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base)

    def stored(weights: Sequence[tuple[float, ...]]) -> int:
        example = Example("a", (7, 8), ((1, 2, 3), (1, 3)), token_weights=tuple(weights))
        Precomputed(str(tmp_path)).prepare(backbone, [example])
        return len(list(tmp_path.glob("*.safetensors")))

    assert [stored(()), stored(PAIR.token_weights), stored(PAIR.token_weights), stored(())] == [1, 2, 2, 2]


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(InputError, match="token_weights: answer must be a number of at least 0, got -1"):
        TokenWeights(answer=-1.0)
