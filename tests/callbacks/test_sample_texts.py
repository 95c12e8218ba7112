"""Sample texts: invisible characters are escaped, lines are wrapped, and long texts are truncated with a count."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from guardreasoner.callbacks import SampleTexts
from guardreasoner.evaluation.benchmark_data import BenchmarkDataModule
from guardreasoner.evaluation.guard_module import GuardModule
from guardreasoner.model.backbone import Backbone
from guardreasoner.records import Record, Split
from tests.support.tiny import Scripted, quiet_trainer

ShowText = Callable[[Record, str], tuple[str, list[str]]]


class SingleRecord:
    """A source with one record.

    Args:
        record: The record.
    """

    def __init__(self, record: Record) -> None:
        self.record = record

    def records(self, split: Split) -> list[Record]:
        """Return the record."""
        return [self.record]


@pytest.fixture
def show_text(tiny_base: Path, tmp_path: Path) -> ShowText:
    """Return a function that tests a record with a given output, and returns tag and lines of its text."""

    def test(record: Record, output: str) -> tuple[str, list[str]]:
        scripted = Scripted([record], lambda *_: output)
        logger = TensorBoardLogger(tmp_path, name="run", version="0")
        trainer = quiet_trainer(logger=logger, callbacks=[SampleTexts()])
        module = GuardModule(Backbone(str(tiny_base)), lambda _: scripted, lambda _: scripted)
        trainer.test(module, datamodule=BenchmarkDataModule(SingleRecord(record)), verbose=False)
        events = EventAccumulator(str(tmp_path / "run" / "0"))
        events.Reload()
        (tag,) = events.Tags()["tensors"]
        (event,) = events.Tensors(tag)
        return tag, event.tensor_proto.string_val[0].decode().split("\n")

    return test


def test_invisible_characters_are_escaped(show_text: ShowText) -> None:
    prompt = "\x1b[31mred \u202egnp.exe\u202c z\u200bw \U000e0041 \x00 a\u2028b\tc\xa0d مرحبا 你好"
    tag, lines = show_text(
        Record("a/\x1b[0m" + "b" * 200, prompt, labels={"request": "harmful"}), "Hm.\r\nNo.\n\n# <b>"
    )
    escaped = r"\x1b[31mred \u202egnp.exe\u202c z\u200bw \U000e0041 \x00 a"
    parts = [*("Prompt:", escaped, "b    c\xa0d مرحبا 你好"), *("", "Gold labels:", "request harmful")]
    assert lines == [f"    {line}" for line in [*parts, "", "Output:", "Hm.", "No.", "", "# <b>"]]
    assert tag.isprintable()
    assert len(tag) < 120


def test_a_long_text_is_wrapped_and_truncated(show_text: ShowText) -> None:
    text = "word " * 200_000
    _, lines = show_text(Record("a", text, "r", {"request": "harmful"}), "the output")
    assert max(map(len, lines)) <= 4 + 110
    assert lines[1].count("word") == 22
    assert f"    … {len(text) - 8000:,} more characters" in lines
    assert lines[-2:] == ["    Output:", "    the output"]


def test_each_test_shows_texts(tiny_base: Path, tmp_path: Path) -> None:
    record = Record("r", "Hi", labels={"request": "unharmful"})
    trainer = quiet_trainer(
        logger=TensorBoardLogger(tmp_path, name="run", version="0"), callbacks=[SampleTexts(count=1)]
    )
    engine = Scripted([record], lambda *_: "text")
    for _ in range(2):
        module = GuardModule(Backbone(str(tiny_base)), lambda _: engine, lambda _: engine)
        trainer.test(module, datamodule=BenchmarkDataModule(SingleRecord(record)), verbose=False)
    events = EventAccumulator(str(tmp_path / "run" / "0"))
    events.Reload()
    (tag,) = events.Tags()["tensors"]
    assert len(events.Tensors(tag)) == 2
