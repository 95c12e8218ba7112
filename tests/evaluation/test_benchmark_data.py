"""Benchmark data module: loaders, hard set, invalid input."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.evaluation.benchmark_data import BenchmarkDataModule
from guardreasoner.evaluation.guard_module import GuardModule
from guardreasoner.model.backbone import Backbone
from guardreasoner.records import Record, Split
from tests.support.tiny import K, TinySource, quiet_trainer, write_rollouts, wrong_outputs

TEST = TinySource().records("test")
HARD = [record.id for number, record in enumerate(TEST) if 0 < wrong_outputs(number) < K]


def set_up(base: Path, stage: str = "test", **arguments: Any) -> BenchmarkDataModule:
    """Return a data module after setup() by a trainer with a model."""
    data = BenchmarkDataModule(**({"source": TinySource()} | arguments))
    data.trainer = quiet_trainer()
    data.trainer.strategy.connect(GuardModule(Backbone(str(base))))
    data.setup(stage)
    return data


def ids(loader: Any) -> list[str]:
    """Return the ids of the records that a loader yields, sorted."""
    return sorted(record.id for chunk in loader for record in chunk)


def test_second_loader_has_only_the_hard_records(
    tmp_path: Path, tiny_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "guardreasoner"):
        data = set_up(tiny_base, rollouts=[str(write_rollouts(tmp_path, TEST))])
    everything, hard = data.test_dataloader()
    assert ids(everything) == [record.id for record in TEST]
    assert ids(hard) == HARD
    assert 0 < len(HARD) < len(TEST)
    assert f"test: {len(TEST)} records, {len(HARD)} of them hard" in caplog.messages


def test_outputs_on_other_splits_are_ignored(tmp_path: Path, tiny_base: Path) -> None:
    records = [*TEST, *TinySource().records("train")]
    assert [r.id for r in set_up(tiny_base, rollouts=[str(write_rollouts(tmp_path, records))]).hard] == HARD


def test_one_loader_without_a_hard_record(tmp_path: Path, tiny_base: Path) -> None:
    folder = write_rollouts(tmp_path, [TEST[0]])  # none of its outputs is wrong
    assert len(set_up(tiny_base, rollouts=[str(folder)]).test_dataloader()) == 1


def test_no_hard_set_without_rollouts(tiny_base: Path) -> None:
    data = set_up(tiny_base, chunk_size=4)
    (loader,) = data.test_dataloader()
    assert [len(chunk) for chunk in loader] == [4, 2]
    assert data.hard == []


def test_predict_uses_the_same_records(tiny_base: Path) -> None:
    data = set_up(tiny_base, "predict", rollouts=["not/made/yet"])
    assert ids(data.predict_dataloader()) == [record.id for record in TEST]


def test_validation_split(tiny_base: Path) -> None:
    (loader,) = set_up(tiny_base, split="validation").test_dataloader()
    assert ids(loader) == [record.id for record in TinySource().records("validation")]


def test_rollouts_of_other_records_are_refused(tiny_base: Path, tiny_rollouts: Path) -> None:
    with pytest.raises(InputError, match="no output for a test record"):
        set_up(tiny_base, rollouts=[str(tiny_rollouts)])


def test_empty_split_is_refused(tiny_base: Path) -> None:
    source = TinySource()
    source.counts = source.counts | {"test": 0}
    with pytest.raises(InputError, match="the test split is empty"):
        set_up(tiny_base, source=source)


def test_labels_for_no_task_of_the_model_are_refused(tiny_base: Path) -> None:
    class Other(TinySource):
        def records(self, split: Split) -> list[Record]:
            return [replace(record, labels={"tone": "rude"}) for record in super().records(split)]

    with pytest.raises(InputError, match="6 of 6 records have no label for request, completion, response"):
        set_up(tiny_base, source=Other())


class Unlabelled(TinySource):
    """The tiny records, of which all but the first few have lost their labels."""

    def __init__(self, labelled: int = 0) -> None:
        super().__init__()
        self.labelled = labelled

    def records(self, split: Split) -> list[Record]:
        """Return the records of a split."""
        records = super().records(split)
        return [r if n < self.labelled else replace(r, labels={}) for n, r in enumerate(records)]


def test_records_without_labels_are_judged_without_a_hard_set(tiny_base: Path) -> None:
    data = set_up(tiny_base, source=Unlabelled(), rollouts=["missing"])
    assert len(data.records) == len(TEST)
    assert data.hard == []
    with pytest.raises(InputError, match=f"no label for any task, one of {len(TEST) - 2}"):
        set_up(tiny_base, source=Unlabelled(labelled=2))
