"""Output writers, hard-sample accuracy, throughput and sample texts, in small real runs."""

import argparse
import html
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html

from guardreasoner.callbacks import HardSampleAccuracy, PredictionWriter, RolloutWriter, SampleTexts, Throughput
from guardreasoner.cli.commands import score
from guardreasoner.errors import InputError
from guardreasoner.evaluation.benchmark_data import BenchmarkDataModule
from guardreasoner.evaluation.guard_module import GuardModule
from guardreasoner.model.backbone import Backbone
from guardreasoner.records import Record, Split
from guardreasoner.sources.predictions import read_predictions
from guardreasoner.sources.rollouts import read_rollout_folders
from guardreasoner.training.reasoning_data import ReasoningDataModule
from guardreasoner.training.rsft import RSFTModule
from tests.support.tiny import Scripted, TinySource, answer, load, quiet_trainer, write_rollouts

Outputs = Callable[[Record, int], str]
"""The scripted output of a record by index."""

NASTY = "<script>alert('1 & 2')</script>\n# Don't\n\n![x](http://x)\n\n\t* \"quoted\" `code`"


class NastySource(TinySource):
    """A source whose prompts and responses contain HTML and Markdown."""

    def records(self, split: Split) -> list[Record]:
        """Return the records with markup in their texts."""
        return [Record(r.id, f"{NASTY} {r.prompt}", NASTY, r.labels, r.reasoning) for r in super().records(split)]


def guard(base: Path, split: Split, sampled: Outputs, greedy: Outputs | None = None, k: int = 4) -> GuardModule:
    """Return a guard with scripted outputs."""
    records = TinySource().records(split)
    return GuardModule(
        Backbone(str(base)), lambda _: Scripted(records, sampled), lambda _: Scripted(records, greedy or sampled), k
    )


def number(record: Record) -> int:
    return int(record.id.split("/")[1])


def failing(record: Record, index: int) -> str:
    """Answer three records, then fail."""
    if number(record) == 3:
        raise RuntimeError("the machine is on fire")
    return answer(record, True)


@pytest.fixture
def hard_set(tmp_path: Path) -> Path:
    """A folder of rollouts for which the second, third and fourth test record are hard."""
    return write_rollouts(tmp_path / "hard", TinySource().records("test"))


def test_rollouts_are_written_with_their_records(tiny_base: Path, tmp_path: Path) -> None:
    module = guard(tiny_base, "train", lambda record, index: f"é {index}\n{answer(record, index > 0)}", k=3)
    data = ReasoningDataModule(TinySource(), chunk_size=7)
    quiet_trainer(callbacks=[RolloutWriter(str(tmp_path / "out"))]).predict(
        module, datamodule=data, return_predictions=False
    )
    records, rollouts = read_rollout_folders([tmp_path / "out"])
    assert records == TinySource().records("train")
    assert sorted((r.record_id, r.index) for r in rollouts) == [(r.id, n) for r in records for n in range(3)]
    by_id = {record.id: record for record in records}
    assert all(r.completion == f"é {r.index}\n{answer(by_id[r.record_id], r.index > 0)}" for r in rollouts)
    fingerprint = Backbone(str(tiny_base)).weights_fingerprint()
    assert {(r.model, r.fingerprint, r.seed) for r in rollouts} == {("base", fingerprint, 0)}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("verb", ["predict", "test"])
@pytest.mark.parametrize("has_old", [True, False])
def test_a_failed_run_leaves_the_old_folder(verb: str, has_old: bool, tiny_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if has_old:
        out.mkdir()
        (out / "old.txt").write_text("old")
    writer = {"predict": RolloutWriter, "test": PredictionWriter}[verb](str(out))
    module = guard(tiny_base, "train" if verb == "predict" else "test", failing)
    trainer = quiet_trainer(callbacks=[writer])
    predict = partial(
        trainer.predict, datamodule=ReasoningDataModule(TinySource(), chunk_size=2), return_predictions=False
    )
    test = partial(trainer.test, datamodule=BenchmarkDataModule(TinySource(), chunk_size=2))
    with pytest.raises(RuntimeError, match="on fire"):
        (predict if verb == "predict" else test)(module)
    remaining = [
        str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("[!.]*")) if ".partial" not in str(path)
    ]
    assert remaining == (["out", "out/old.txt"] if has_old else [])
    unfinished = [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]
    assert len(unfinished) == 1  # committed outputs are kept for resuming


def test_a_run_that_cannot_start_writes_nothing(tiny_base: Path, tmp_path: Path) -> None:
    class Unwritable(TinySource):
        def records(self, split: Split) -> list[Record]:
            return [Record(r.id, r.prompt, labels={"request": {"a set"}}) for r in super().records(split)]  # type: ignore[dict-item]

    trainer = quiet_trainer(callbacks=[RolloutWriter(str(tmp_path / "out"))])
    with pytest.raises(TypeError, match="not JSON serializable"):
        trainer.predict(guard(tiny_base, "train", failing), datamodule=ReasoningDataModule(Unwritable()))
    assert not list(tmp_path.iterdir())


def test_a_new_run_replaces_the_old_folder(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    module = guard(tiny_base, "test", lambda record, index: answer(record, True))
    quiet_trainer(callbacks=[PredictionWriter(str(tmp_path / "out"))]).test(
        module, datamodule=BenchmarkDataModule(TinySource()), verbose=False
    )
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["cost.manifest.json", "tasks.json", "tiny-even", "tiny-odd"]
    assert not list(tmp_path.rglob("hard_samples.jsonl"))


def mixed(record: Record, index: int) -> str:
    """Return right outputs: all of four for the second record, two for the third, none for the others."""
    return answer(record, index < {1: 4, 2: 2}.get(number(record), 0))


def greedy_answers(record: Record, index: int) -> str:
    """Return a wrong output for the first record, an unparsed one for the second, right ones for the others."""
    return "Hm." if number(record) == 1 else answer(record, number(record) > 0)


def test_logged_scores_equal_those_of_score(tiny_base: Path, tmp_path: Path, hard_set: Path) -> None:
    out = tmp_path / "guard"
    module = guard(tiny_base, "test", mixed, greedy_answers)
    data = BenchmarkDataModule(TinySource(), [str(hard_set)], chunk_size=2)
    trainer = quiet_trainer(callbacks=[HardSampleAccuracy(), PredictionWriter(str(out))])
    trainer.test(module, datamodule=data, verbose=False)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert [record.id for record in data.hard] == ["test/01", "test/02", "test/03"]
    # 4 + 2 + 0 of 12 outputs; 4 of 6 records.
    assert logged["test/hard_sample_accuracy"] == pytest.approx(6 / 12)
    assert logged["test/accuracy"] == pytest.approx(4 / 6)

    predictions = read_predictions(out)
    assert {record.id for record in predictions.records} == {record.id for record in TinySource().records("test")}
    assert [(r.record_id, r.index) for r in predictions.hard_rollouts if r.record_id == "test/02"] == [
        ("test/02", index) for index in range(4)
    ]
    parser = argparse.ArgumentParser()
    score.configure(parser)
    assert score.run(parser.parse_args([str(out), "--json", str(tmp_path / "scores.json")])) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["models"]["guard"]
    assert scores["records"] == 6
    assert scores["accuracy"] == pytest.approx(100 * logged["test/accuracy"])
    assert [scores["hard"][name] for name in ("accuracy", "records", "samples")] == [pytest.approx(50), 3, 12]
    assert scores["unparsed"] == 1


def test_hard_sample_accuracy_is_reset_and_needs_a_hard_set(tiny_base: Path, hard_set: Path) -> None:
    callback = HardSampleAccuracy()
    for sampled, expected in ((mixed, 0.5), (lambda record, index: answer(record, index == 0), 0.25)):
        trainer = quiet_trainer(callbacks=[callback])
        data = BenchmarkDataModule(TinySource(), [str(hard_set)])
        trainer.test(guard(tiny_base, "test", sampled, greedy_answers), datamodule=data, verbose=False)
        assert trainer.callback_metrics["test/hard_sample_accuracy"] == pytest.approx(expected)
    trainer = quiet_trainer(callbacks=[callback])
    trainer.test(guard(tiny_base, "test", mixed), datamodule=BenchmarkDataModule(TinySource()), verbose=False)
    assert "test/hard_sample_accuracy" not in trainer.callback_metrics


def test_a_test_in_two_processes_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    trainer = quiet_trainer(devices=2, strategy="ddp_fork")
    with pytest.raises(InputError, match="but the trainer has 2"):
        PredictionWriter(str(tmp_path / "b")).setup(trainer, guard(tiny_base, "test", mixed), "test")
    assert not list(tmp_path.iterdir())


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def logged_text(events: EventAccumulator, tag: str) -> str:
    (event,) = events.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def test_a_fit_logs_throughput_and_texts(tiny_base: Path, tmp_path: Path) -> None:
    trainer = quiet_trainer(
        logger=TensorBoardLogger(tmp_path, name="run", version="0"),
        callbacks=[Throughput(), SampleTexts(count=2, max_new_tokens=6)],
        log_every_n_steps=2,
    )
    module = RSFTModule(load(tiny_base), lambda parameters: torch.optim.SGD(parameters, lr=0.5))
    trainer.fit(module, datamodule=ReasoningDataModule(NastySource(), batch_size=6, epochs=2, max_length=512))
    events = read_events(tmp_path / "run" / "0")
    for name in ("train/tokens_per_second", "train/memory_gb", "train/lr", "train/loss", "train/grad_norm"):
        assert len(events.Scalars(name)) == 4, name
        assert all(event.value > 0 for event in events.Scalars(name)[:-1]), name
    # Steps 2, 4, 6 and 8 of a cosine over eight use the rates after 1, 3, 5 and 7 steps.
    rates = [event.value for event in events.Scalars("train/lr")]
    assert rates == pytest.approx([0.25 * (1 + math.cos(math.pi * done / 8)) for done in (1, 3, 5, 7)])
    assert [event.value for event in events.Scalars("epoch")] == [
        0.5,
        1,
        1.5,
        2,
        2,
    ]  # the last one is logged by validation
    assert 0.01 < events.Scalars("train/memory_gb")[0].value < 100
    shown = sorted(tag for tag in events.Tags()["tensors"] if tag.startswith("texts/"))
    assert shown == ["texts/validation/00/text_summary", "texts/validation/01/text_summary"]


def test_throughput_counts_unpadded_tokens(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This clock advances by a second whenever it is read: at the start and at the end of every two steps.
    seconds = iter(range(1000))
    monkeypatch.setattr("guardreasoner.callbacks.throughput.time.perf_counter", lambda: float(next(seconds)))

    class RecordRates(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            rates.append(float(trainer.callback_metrics.get("train/tokens_per_second", 0)))

    rates: list[float] = []
    data = ReasoningDataModule(TinySource(), batch_size=6, epochs=1)
    trainer = quiet_trainer(callbacks=[Throughput(), RecordRates()], log_every_n_steps=2, limit_val_batches=0)
    trainer.fit(RSFTModule(load(tiny_base)), datamodule=data)
    assert rates[0] == 0
    assert rates[1] == rates[2]
    assert rates[1] + rates[3] == sum(example.length for example in data.train)


def test_sample_texts_are_shown_verbatim(tiny_base: Path, tmp_path: Path) -> None:
    records = NastySource().records("test")
    output = f"{NASTY}\n\nAnswers:\nRequest: harmful"
    scripted = Scripted(records, lambda record, index: output)
    trainer = quiet_trainer(
        logger=TensorBoardLogger(tmp_path, name="run", version="0"), callbacks=[SampleTexts(count=3)]
    )
    module = GuardModule(Backbone(str(tiny_base)), lambda _: scripted, lambda _: scripted)
    trainer.test(module, datamodule=BenchmarkDataModule(NastySource(), chunk_size=2), verbose=False)
    events = read_events(tmp_path / "run" / "0")
    tags = [tag.removesuffix("/text_summary") for tag in events.Tags()["tensors"]]
    assert len([tag for tag in tags if tag.startswith("texts/test/")]) == 3
    tag = next(tag for tag in tags if tag.startswith("texts/test/"))
    (record,) = [record for record in records if tag == f"texts/{record.id}"]
    page = markdown_to_safe_html(logged_text(events, tag))
    # One code block and nothing else: no script, no heading, no image.
    assert {part.split(">")[0].strip("/") for part in page.split("<")[1:]} == {"pre", "code"}
    # The text is unchanged.
    text = html.unescape(page)
    for part in (record.prompt, record.response or "", output):
        for line in filter(None, part.replace("\t", " " * 4).splitlines()):
            assert line.strip() in text
