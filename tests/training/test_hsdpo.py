import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.optim import SGD, AdamW

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, Example
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.losses import dpo, ipo, orpo, simpo
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reference import FrozenAdapter, FrozenCopy, Precomputed, Reference
from tests.support.tiny import TinySource, batch_of, load, naive_logps, quiet_trainer, weights

PAIRS = 15
"""Records of the scripted rollouts with 1, 2 or 3 of 4 outputs wrong: three in five of 24, and one more."""


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.05)


class Watch(Callback):
    """Keeps what was logged at each step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def data(rollouts: Path, **changes: Any) -> PreferenceDataModule:
    settings: dict[str, Any] = {"batch_size": PAIRS, "epochs": 1, "validation_share": 0.0}
    return PreferenceDataModule(TinySource(), [str(rollouts)], **(settings | changes))


def fitted(backbone: Backbone, pairs: PreferenceDataModule, **changes: Any) -> list[dict[str, float]]:
    watch = Watch()
    module = HSDPOModule(backbone, **({"optimizer": sgd} | changes))
    quiet_trainer(callbacks=[watch]).fit(module, datamodule=pairs)
    return watch.rows


class FixedReference(Reference):
    """A reference with known values: −1 nat for each chosen and −2 nats for each rejected completion."""

    def prepare(self, backbone: Backbone, examples: Sequence[Example], trainer: Any = None) -> None:
        """Do nothing."""

    def sequence_logps(self, batch: Batch) -> Tensor:
        """Return the values."""
        return -1.0 - batch.number


def by_hand(base: Path, examples: Sequence[Example]) -> list[tuple[float, float, float, float]]:
    """Return (α, log π(chosen), log π(rejected), NLL a chosen token) of each pair under the model as it is saved."""
    network = load(base, double=True).network
    rows = []
    with torch.no_grad():
        for example in examples:
            chosen, rejected = (naive_logps(network, example.prompt, ids) for ids in example.completions)
            rows.append((example.weights[0], chosen.sum().item(), rejected.sum().item(), -chosen.mean().item()))
    return rows


def test_five_lines_train_a_model(tiny_base: Path, tiny_rollouts: Path) -> None:
    watch = Watch()
    pairs = PreferenceDataModule(TinySource(), [str(tiny_rollouts)], batch_size=8, epochs=10, validation_share=0.3)
    module = HSDPOModule(load(tiny_base), beta=0.1, optimizer=lambda parameters: AdamW(parameters, lr=0.005))
    trainer = quiet_trainer(callbacks=[watch])
    trainer.fit(module, datamodule=pairs)
    first, last = watch.rows[0], watch.rows[-1]
    assert last["train/loss"] < 0.9 * first["train/loss"]
    assert last["train/preference_loss"] < 0.9 * first["train/preference_loss"]
    assert (first["train/margin"], first["train/preferred"]) == (0, 0)
    assert last["train/margin"] > 0
    assert last["train/preferred"] > 0.5
    assert trainer.callback_metrics["val/loss"] > 0
    assert len(pairs.train) + len(pairs.validation) == PAIRS
    assert pairs.validation


def test_the_first_loss_is_ln_2_and_the_nll(tiny_base: Path, tiny_rollouts: Path) -> None:
    pairs = data(tiny_rollouts, micro_batch_size=4)
    (row,) = fitted(load(tiny_base, double=True), pairs)
    hand = by_hand(tiny_base, pairs.train)
    # Three degrees of hardness, so three weights: 1 − γ, 1 and 1 + γ.
    assert {alpha for alpha, *_ in hand} == {0.5, 1.0, 1.5}
    expected = {
        "train/loss": sum(alpha * math.log(2) + 2 * nll for alpha, _, _, nll in hand) / PAIRS,
        "train/preference_loss": sum(alpha * math.log(2) for alpha, *_ in hand) / PAIRS,
        "train/sft_loss": sum(nll for *_, nll in hand) / PAIRS,
        "train/weight": sum(alpha for alpha, *_ in hand) / PAIRS,
        **dict.fromkeys(("train/margin", "train/reward_chosen", "train/reward_rejected", "train/preferred"), 0.0),
    }
    assert row.pop("train/grad_norm") > 0
    assert row == pytest.approx(expected, rel=1e-6, abs=0)


@pytest.mark.parametrize("sft_coef", [0.0, 3.0])
@pytest.mark.parametrize("objective", [dpo, ipo])
def test_the_loss_with_another_reference_and_objective(
    objective: Any, sft_coef: float, tiny_base: Path, tiny_rollouts: Path
) -> None:
    beta = 0.02
    pairs = data(tiny_rollouts, micro_batch_size=4)
    changes = {"reference": FixedReference(), "objective": objective, "beta": beta, "sft_coef": sft_coef}
    (row,) = fitted(load(tiny_base, double=True), pairs, **changes)
    hand = by_hand(tiny_base, pairs.train)
    gaps = [(chosen + 1) - (rejected + 2) for _, chosen, rejected, _ in hand]
    assert max(gaps) - min(gaps) > 1
    if objective is dpo:
        losses = [math.log(1 + math.exp(-beta * gap)) for gap in gaps]
    else:
        losses = [(gap - 1 / (2 * beta)) ** 2 for gap in gaps]
    weighed = [alpha * loss for (alpha, *_), loss in zip(hand, losses, strict=True)]
    total = (sum(weighed) + sft_coef * sum(nll for *_, nll in hand)) / PAIRS
    assert row["train/loss"] == pytest.approx(total, rel=1e-6)
    assert row["train/preference_loss"] == pytest.approx(sum(weighed) / PAIRS, rel=1e-6)
    assert row["train/margin"] == pytest.approx(sum(gaps) / PAIRS, rel=1e-6)
    assert row["train/preferred"] == pytest.approx(sum(gap > 0 for gap in gaps) / PAIRS)
    assert row["train/reward_chosen"] == pytest.approx(beta * sum(chosen + 1 for _, chosen, _, _ in hand) / PAIRS)
    assert row["train/reward_rejected"] == pytest.approx(beta * sum(wrong + 2 for _, _, wrong, _ in hand) / PAIRS)


def test_micro_batches_do_not_change_the_weights(tiny_base: Path, tiny_rollouts: Path) -> None:
    found = []
    for micro in (None, 1, 3):
        backbone = load(tiny_base, double=True)
        fitted(backbone, data(tiny_rollouts, batch_size=8, micro_batch_size=micro))
        found.append(weights(backbone))
    start = weights(load(tiny_base, double=True))
    assert any(not torch.equal(value, start[name]) for name, value in found[0].items())
    for other in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-9, msg=name)


def test_every_reference_trains_the_same_model(tiny_adapter: Path, tiny_rollouts: Path, tmp_path: Path) -> None:
    found = []
    for reference in (FrozenCopy(), FrozenAdapter(), Precomputed(str(tmp_path))):
        backbone = load(tiny_adapter, double=True)
        rows = fitted(backbone, data(tiny_rollouts, batch_size=8, micro_batch_size=3), reference=reference)
        found.append(
            ([row["train/margin"] for row in rows], backbone.completion_logps(batch_of(backbone.prompt_tokenizer)))
        )
        assert found[-1][0][0] == pytest.approx(0, abs=1e-6)
        assert abs(found[-1][0][1]) > 1e-3
    for margins, logps in found[1:]:
        assert margins == pytest.approx(found[0][0], abs=1e-5)
        torch.testing.assert_close(logps, found[0][1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reference", [FrozenCopy, FrozenAdapter])
def test_dropout_is_off(reference: Any, tiny_adapter: Path, tiny_rollouts: Path) -> None:
    # The adapter has dropout, and as it is loaded it is on: policy and reference would each drop other values.
    backbone = load(tiny_adapter)
    backbone.train()
    rows = fitted(backbone, data(tiny_rollouts), reference=reference())
    assert rows[0]["train/margin"] == 0
    assert not any(module.training for module in backbone.modules() if isinstance(module, torch.nn.Dropout))


def test_validation_alone_has_no_margin(tiny_base: Path, tiny_adapter: Path, tiny_rollouts: Path) -> None:
    for backbone, reference in ((load(tiny_base), FrozenCopy()), (load(tiny_adapter), FrozenAdapter())):
        (found,) = quiet_trainer().validate(
            HSDPOModule(backbone, reference=reference),
            datamodule=data(tiny_rollouts, validation_share=0.5),
            verbose=False,
        )
        assert found["val/margin"] == 0
        assert found["val/sft_loss"] > 0


def test_activations_are_computed_again_where_that_is_asked(tiny_base: Path, tiny_rollouts: Path) -> None:
    calls = []
    for again in (False, True):
        backbone = load(tiny_base, gradient_checkpointing=again)
        seen: list[int] = []
        backbone.network.model.layers[0].mlp.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        fitted(backbone, data(tiny_rollouts), reference=FixedReference())
        calls.append(len(seen))
    # what all prompts begin with and the rest, each in a forward pass, and once more in the backward pass
    assert calls == [2, 4]


def test_a_loss_that_is_no_number_stops_before_the_update(tiny_base: Path, tiny_rollouts: Path) -> None:
    backbone = load(tiny_base)
    before = weights(backbone)
    with pytest.raises(InputError, match="step 0: the loss is nan"):
        fitted(backbone, data(tiny_rollouts), objective=lambda chosen, rejected, beta: chosen.policy * float("nan"))
    after = weights(backbone)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"beta": 0.0}, "model.beta"),
        ({"beta": -0.1}, "model.beta"),
        ({"beta": math.nan}, "model.beta"),
        ({"beta": math.inf}, "model.beta"),
        ({"sft_coef": -1.0}, "model.sft_coef"),
        ({"sft_coef": math.inf}, "model.sft_coef"),
    ],
)
def test_impossible_numbers_are_refused(arguments: dict[str, float], named: str, tiny_base: Path) -> None:
    with pytest.raises(InputError, match=named):
        HSDPOModule(Backbone(str(tiny_base)), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", [simpo, orpo])
def test_reference_free_objectives_prepare_no_reference(objective: Any, tiny_base: Path, tiny_rollouts: Path) -> None:
    pairs = data(tiny_rollouts, micro_batch_size=4)
    changes = {"reference": FixedReference(), "objective": objective, "beta": 0.5, "sft_coef": 1.0}
    (row,) = fitted(load(tiny_base, double=True), pairs, **changes)
    terms, nlls = [], []
    for example, (alpha, chosen, rejected, nll) in zip(pairs.train, by_hand(tiny_base, pairs.train), strict=True):
        means = [logp / len(ids) for logp, ids in zip((chosen, rejected), example.completions, strict=True)]
        if objective is simpo:
            terms.append(alpha * math.log(1 + math.exp(-0.5 * (means[0] - means[1] - 0.5))))
        else:
            odds = [math.exp(mean) / (1 - math.exp(mean)) for mean in means]
            terms.append(alpha * 0.5 * math.log(1 + odds[1] / odds[0]))
        nlls.append(nll)
    assert row["train/preference_loss"] == pytest.approx(sum(terms) / PAIRS, rel=1e-6)
    assert row["train/loss"] == pytest.approx((sum(terms) + sum(nlls)) / PAIRS, rel=1e-6)
    assert "train/reward_chosen" not in row


def test_an_objective_with_the_wrong_arguments_is_refused(tiny_base: Path) -> None:
    with pytest.raises(InputError, match=r"model\.objective: .*expected a function of \(chosen, rejected, beta\)"):
        HSDPOModule(load(tiny_base), objective=lambda margin, beta: margin)  # type: ignore[arg-type, misc]


def test_an_objective_that_returns_the_wrong_shape_is_refused(tiny_base: Path, tiny_rollouts: Path) -> None:
    with pytest.raises(InputError, match=r"returned \(\), expected the loss of each pair, \(\d+,\)"):
        fitted(load(tiny_base), data(tiny_rollouts), objective=lambda chosen, rejected, beta: chosen.policy.mean())


def test_a_validated_module_can_be_fitted_and_fitted_again(tiny_adapter: Path, tiny_rollouts: Path) -> None:
    module, pairs = HSDPOModule(load(tiny_adapter), optimizer=sgd), data(tiny_rollouts, validation_share=0.5)
    quiet_trainer().validate(module, datamodule=pairs, verbose=False)
    for _ in range(2):
        watch = Watch()
        quiet_trainer(callbacks=[watch]).fit(module, datamodule=pairs)
        assert watch.rows[0]["train/margin"] == 0
