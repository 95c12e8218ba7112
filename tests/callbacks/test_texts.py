"""Sample texts: nothing that cannot be seen changes what is read, lines fit, and long ones say what is not shown."""

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

Shown = Callable[[Record, str], tuple[str, list[str]]]


class One:
    """A source of one record.

    Args:
        record: it.
    """

    def __init__(self, record: Record) -> None:
        self.record = record

    def records(self, split: Split) -> list[Record]:
        """Return it."""
        return [self.record]


@pytest.fixture
def shown(tiny_base: Path, tmp_path: Path) -> Shown:
    """Return what tests on one record with one output, and gives back tag and lines of what TensorBoard has."""

    def test(record: Record, output: str) -> tuple[str, list[str]]:
        says = Scripted([record], lambda *_: output)
        logger = TensorBoardLogger(tmp_path, name="run", version="0")
        trainer = quiet_trainer(logger=logger, callbacks=[SampleTexts()])
        module = GuardModule(Backbone(str(tiny_base)), lambda _: says, lambda _: says)
        trainer.test(module, datamodule=BenchmarkDataModule(One(record)), verbose=False)
        found = EventAccumulator(str(tmp_path / "run" / "0"))
        found.Reload()
        (tag,) = found.Tags()["tensors"]
        (event,) = found.Tensors(tag)
        return tag, event.tensor_proto.string_val[0].decode().split("\n")

    return test


def test_what_cannot_be_seen_is_written_as_its_escape(shown: Shown) -> None:
    prompt = "\x1b[31mred \u202egnp.exe\u202c z\u200bw \U000e0041 \x00 a\u2028b\tc\xa0d مرحبا 你好"
    tag, lines = shown(Record("a/\x1b[0m" + "b" * 200, prompt, labels={"request": "harmful"}), "Hm.\r\nNo.\n\n# <b>")
    seen = r"\x1b[31mred \u202egnp.exe\u202c z\u200bw \U000e0041 \x00 a"
    parts = [*("Prompt:", seen, "b    c\xa0d مرحبا 你好"), *("", "Gold labels:", "request harmful")]
    assert lines == [f"    {line}" for line in [*parts, "", "Output:", "Hm.", "No.", "", "# <b>"]]
    assert tag.isprintable()
    assert len(tag) < 120


def test_a_long_text_is_wrapped_and_says_what_is_left_out(shown: Shown) -> None:
    text = "word " * 200_000
    _, lines = shown(Record("a", text, "r", {"request": "harmful"}), "the output")
    assert max(map(len, lines)) <= 4 + 110
    assert lines[1].count("word") == 22
    assert f"    … {len(text) - 8000:,} more characters" in lines
    assert lines[-2:] == ["    Output:", "    the output"]
