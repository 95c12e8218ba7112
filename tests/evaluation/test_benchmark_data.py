"""Held-out records, and the hard ones among them."""

import logging
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.evaluation.benchmark_data import BenchmarkDataModule
from guardreasoner.evaluation.guard_module import GuardModule
from guardreasoner.model.backbone import Backbone
from tests.support.tiny import K, TinySource, quiet_trainer, write_rollouts, wrong_outputs

TEST = TinySource().records("test")
HARD = [record.id for place, record in enumerate(TEST) if 0 < wrong_outputs(place) < K]


def prepared(base: Path, stage: str = "test", **arguments: Any) -> BenchmarkDataModule:
    """Return a data module that a trainer with a model has set up."""
    data = BenchmarkDataModule(**({"source": TinySource()} | arguments))
    data.trainer = quiet_trainer()
    data.trainer.strategy.connect(GuardModule(Backbone(str(base))))
    data.setup(stage)
    return data


def ids(loader: Any) -> list[str]:
    """Return the ids of the records that a loader yields, sorted."""
    return sorted(record.id for chunk in loader for record in chunk)


def test_the_second_loader_holds_the_mixed_records_alone(
    tmp_path: Path, tiny_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "guardreasoner"):
        data = prepared(tiny_base, rollouts=[str(write_rollouts(tmp_path, TEST))])
    everything, hard = data.test_dataloader()
    assert ids(everything) == [record.id for record in TEST]
    assert ids(hard) == HARD
    assert 0 < len(HARD) < len(TEST)
    assert f"test: {len(TEST)} records, {len(HARD)} of them hard" in caplog.messages


def test_outputs_on_other_splits_make_no_record_hard(tmp_path: Path, tiny_base: Path) -> None:
    records = [*TEST, *TinySource().records("train")]
    assert [r.id for r in prepared(tiny_base, rollouts=[str(write_rollouts(tmp_path, records))]).hard] == HARD


def test_without_a_mixed_record_there_is_one_loader(tmp_path: Path, tiny_base: Path) -> None:
    folder = write_rollouts(tmp_path, [TEST[0]])  # the only record: none of its outputs is wrong
    assert len(prepared(tiny_base, rollouts=[str(folder)]).test_dataloader()) == 1


def test_without_rollouts_there_is_no_hard_set(tiny_base: Path) -> None:
    data = prepared(tiny_base, chunk_size=4)
    (loader,) = data.test_dataloader()
    assert [len(chunk) for chunk in loader] == [4, 2]
    assert data.hard == []


def test_the_hard_set_is_looked_for_on_the_same_records(tiny_base: Path) -> None:
    data = prepared(tiny_base, "predict", rollouts=["not/made/yet"])
    assert ids(data.predict_dataloader()) == [record.id for record in TEST]


def test_another_split_can_be_measured(tiny_base: Path) -> None:
    (loader,) = prepared(tiny_base, split="validation").test_dataloader()
    assert ids(loader) == [record.id for record in TinySource().records("validation")]


def test_rollouts_of_no_test_record_are_refused(tiny_base: Path, tiny_rollouts: Path) -> None:
    with pytest.raises(InputError, match="no output for a test record"):
        prepared(tiny_base, rollouts=[str(tiny_rollouts)])


def test_an_empty_split_is_refused(tiny_base: Path) -> None:
    source = TinySource()
    source.counts = source.counts | {"test": 0}
    with pytest.raises(InputError, match="the test split is empty"):
        prepared(tiny_base, source=source)
