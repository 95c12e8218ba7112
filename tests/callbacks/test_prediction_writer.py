"""Tests that are interrupted: what is answered is kept, and counts once."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.callbacks import HardSampleAccuracy, PredictionWriter
from guardreasoner.errors import InputError
from guardreasoner.evaluation.benchmark_data import BenchmarkDataModule
from guardreasoner.evaluation.guard_module import GuardModule
from guardreasoner.generators import Completion, Request, ScoreRequest, Scores
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.records import Record, Split
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.sources.predictions import PREDICTIONS, read_predictions
from tests.support.kill_once import outputs
from tests.support.tiny import Scripted, TinySource, answer, quiet_trainer, write_rollouts

RECORDS = TinySource().records("test")


class Failing(Scripted):
    """A scripted engine that fails after some requests, counted over all engines of a test.

    Args:
        requested: the requests so far.
        after: number of requests that it answers.
        say: the output of a record with an index.
    """

    def __init__(self, requested: list[str], after: int, say: Callable[[Record, int], str]) -> None:
        super().__init__(RECORDS, say)
        self.requested = requested
        self.after = after

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            if len(self.requested) == self.after:
                raise RuntimeError("the machine is on fire")
            self.requested.append(request.record_id)
            yield from super().generate_groups([request])


def evaluate(
    base: Path, folder: Path, hard: Path, after: int = 99, seed: int = 0, **trainer: Any
) -> tuple[list[str], dict[str, float]]:
    """Test until the engines fail; return the requests and, if they did not, the metrics."""
    requested: list[str] = []
    greedy = Failing(requested, after, lambda record, _: answer(record, record.id[-1] in "024"))
    sampled = Failing(requested, after, lambda record, index: answer(record, index > 0))
    module = GuardModule(Backbone(str(base)), lambda _: sampled, lambda _: greedy, k=3, seed=seed)
    runner = quiet_trainer(callbacks=[HardSampleAccuracy(), PredictionWriter(str(folder))], **trainer)
    data = BenchmarkDataModule(TinySource(), [str(hard)], chunk_size=4)
    try:
        runner.test(module, datamodule=data, verbose=False)
    except RuntimeError:
        return requested, {}
    return requested, {name: float(value) for name, value in runner.callback_metrics.items()}


@pytest.fixture
def hard(tmp_path: Path) -> Path:
    """Rollouts for which the second, third and fourth of six test records are hard."""
    return write_rollouts(tmp_path / "hard", RECORDS)


def test_an_interrupted_test_is_resumed(
    tiny_base: Path, hard: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    all_requests, expected = evaluate(tiny_base, tmp_path / "whole", hard)
    assert expected["test/accuracy"] == pytest.approx(0.5)
    assert expected["test/hard_sample_accuracy"] == pytest.approx(2 / 3)
    requested = []
    with caplog.at_level(logging.INFO, "guardreasoner"):
        for after in (3, 0, 4, 99):  # within a batch, at once, among the hard records, never
            requests, metrics = evaluate(tiny_base, tmp_path / "out", hard, after)
            assert (tmp_path / "out").exists() == bool(metrics) == (after == 99)
            requested += requests
    assert sorted(requested) == sorted(all_requests)  # each once
    assert metrics == expected
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")
    assert [line for line in caplog.messages if "resuming" in line] == [
        "resuming: 3 of 6 records and 0 of 3 hard records are done",
        "resuming: 3 of 6 records and 0 of 3 hard records are done",
        "resuming: 6 of 6 records and 1 of 3 hard records are done",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hard", "out", "whole"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"limit_test_batches": 1}, {"precision": "bf16-mixed"}])
def test_other_settings_start_from_scratch(
    change: dict[str, Any], tiny_base: Path, hard: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate(tiny_base, tmp_path / "out", hard, 3)
    with caplog.at_level(logging.INFO, "guardreasoner"):
        other = evaluate(tiny_base, tmp_path / "out", hard, **change)
    assert other == evaluate(tiny_base, tmp_path / "fresh", hard, **change)
    assert outputs(tmp_path / "out") == outputs(tmp_path / "fresh")
    assert [line for line in caplog.messages if "unfinished run with other settings" in line]
    requests, _ = evaluate(tiny_base, tmp_path / "out", hard)
    assert len(requests) == 6 + 3 - 3  # the first run's answers are still there


class Scoring(Failing):
    """An engine with scripted outputs, whose labels a real model scores.

    Args:
        backbone: the model.
        requested: as for :class:`Failing`.
        after: as for :class:`Failing`.
        say: as for :class:`Failing`.
    """

    def __init__(self, backbone: Backbone, requested: list[str], after: int, say: Callable[[Record, int], str]) -> None:
        super().__init__(requested, after, say)
        self.local = LocalGenerator(backbone, 1)

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores of the model."""
        return self.local.score(requests)


def said(record: Record, index: int) -> str:
    """Return a right output, a wrong one for every third index, and none for the second record."""
    return "Hm." if record == RECORDS[1] else answer(record, index % 3 < 2)


def scored(base: Path, folder: Path, after: int = 99) -> bool:
    """Test with scores and three votes a record until the engines fail; return whether they did not."""
    requested: list[str] = []
    backbone = Backbone(str(base))
    engine = Scoring(backbone, requested, after, said)
    module = GuardModule(backbone, lambda _: engine, lambda _: engine, k=2, votes=3)
    runner = quiet_trainer(callbacks=[PredictionWriter(str(folder))])
    try:
        runner.test(module, datamodule=BenchmarkDataModule(TinySource(), chunk_size=4), verbose=False)
    except RuntimeError:
        return False
    return True


def test_scores_of_labels_are_written(tiny_base: Path, tmp_path: Path) -> None:
    assert scored(tiny_base, tmp_path / "made")
    rows = {row["record_id"]: row for path in (tmp_path / "made").rglob(PREDICTIONS) for _, row in read_jsonl(path)}
    assert "scores" not in rows[RECORDS[1].id]
    for record in (RECORDS[0], *RECORDS[2:]):
        scores = rows[record.id]["scores"]
        assert set(scores) == {"reasoned", "votes"}
        gold = record.gold()
        assert set(scores["reasoned"]) == set(gold)
        for task, labels in scores["reasoned"].items():
            assert sum(labels.values()) == pytest.approx(1)
            assert scores["votes"][task][gold[task]] == pytest.approx(2 / 3)


@pytest.mark.parametrize("after", [3, 9, 11])
def test_an_interrupted_test_ends_with_the_same_scores(tiny_base: Path, tmp_path: Path, after: int) -> None:
    assert scored(tiny_base, tmp_path / "whole")
    assert not scored(tiny_base, tmp_path / "made", after)
    assert scored(tiny_base, tmp_path / "made")
    assert outputs(tmp_path / "made") == outputs(tmp_path / "whole")


class Years(TinySource):
    """Records of benchmarks that are named like the folders of k outputs."""

    def records(self, split: Split) -> list[Record]:
        """Return the records of a split."""
        return [
            replace(record, source=("2024", "0")[number % 2]) for number, record in enumerate(super().records(split))
        ]


def test_benchmarks_named_like_numbers_come_back(tiny_base: Path, tmp_path: Path) -> None:
    records = Years().records("test")
    engine = Scripted(records, lambda record, _: answer(record, True))
    module = GuardModule(Backbone(str(tiny_base)), lambda _: engine, lambda _: engine, k=2)
    runner = quiet_trainer(callbacks=[PredictionWriter(str(tmp_path / "guard"))])
    runner.test(module, datamodule=BenchmarkDataModule(Years(), chunk_size=4), verbose=False)
    of_2024, of_0 = records[::2], records[1::2]
    for path, expected in ((tmp_path / "guard", of_0 + of_2024), (tmp_path / "guard" / "2024", of_2024)):
        read = read_predictions(path)
        assert read.model == "guard"
        assert [(one.id, one.source, one.messages) for one in read.records] == [
            (one.id, one.source, one.messages) for one in expected
        ]
        assert [(one.record_id, one.index) for one in read.rollouts] == [(one.id, 0) for one in expected]
        assert read.more_rollouts == []
    with pytest.raises(InputError, match=f"no {PREDICTIONS} here"):
        read_predictions(tmp_path)  # the folder of the model is one further
