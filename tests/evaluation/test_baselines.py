"""Baselines through the real command: trained on the training records, written and scored like a guard's answers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.records import Record, Split
from guardreasoner.tasks import GUARD_TASKS
from tests.support.guard_models import QWEN_TOKENS, make_guard_model
from tests.support.tiny import TinySource

pytestmark = pytest.mark.usefixtures("workplace")


class Unlabelled:
    """Training records without labels for a task of the model."""

    def records(self, split: Split) -> list[Record]:
        """Return one training record without a label, or the tiny test records."""
        return [Record("t", "a prompt", labels={}, source="s")] if split == "train" else TinySource().records(split)


class Streamed:
    """The tiny records, one after another, with as many labels for the second task as for the first."""

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records; all but those without a response have a label for it."""
        yield from TinySource().records(split)


class Contaminated:
    """Training records that are tested too."""

    def records(self, split: Split) -> list[Record]:
        """Return the test records, and for training all others too."""
        return [*TinySource().records("test"), *(TinySource().records("train") if split == "train" else ())]


def flags(base: Path, classifier: str, output: str, source: str = "tests.support.tiny.TinySource") -> tuple[str, ...]:
    """Return the arguments of a test of a baseline."""
    return (
        *("test", "--config", "configs/baseline.yaml", "--data.source", source, "--auto_build", "false"),
        *("--model.backbone.path", str(base), "--trainer.enable_progress_bar", "false", "--output", output),
        *("--model.classifier", f"guardreasoner.evaluation.baselines.{classifier}"),
    )


def test_the_words_tell_what_the_training_records_teach(tiny_base: Path, start: Callable[..., str]) -> None:
    start(*flags(tiny_base, "tf_idf", "words"))
    start(*flags(tiny_base, "majority", "most"))
    answers = {}
    for name in ("words", "most"):
        files = sorted(Path(name).glob("*/generated_predictions.jsonl"))
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        answers[name] = {row["record_id"]: row for row in rows}
    records = TinySource().records("test")
    assert answers["words"].keys() == answers["most"].keys() == {record.id for record in records}
    requests = {}
    for record in records:
        row = answers["words"][record.id]
        assert f"Request: {record.labels['request']}" in row["predict"]  # "break" or "mend"
        probabilities = row["scores"]["direct"]["request"]
        assert sum(probabilities.values()) == pytest.approx(1)
        assert max(probabilities, key=probabilities.__getitem__) == record.labels["request"]
        assert "Completion: compliance" in row["predict"]  # the only label that the training records have
        requests[record.id] = answers["most"][record.id]["scores"]["direct"]["request"]
    assert len({tuple(shares.items()) for shares in requests.values()}) == 1
    train = [record.labels["request"] for record in TinySource().records("train")]
    assert requests[records[0].id]["harmful"] == pytest.approx(train.count("harmful") / len(train))
    report = start("score", "most", "words")
    assert "words" in report
    assert "most" in report


@pytest.mark.slow
def test_a_baseline_answers_in_the_format_of_the_model(tiny_base: Path, start: Callable[..., str]) -> None:
    base = make_guard_model(tiny_base, Path("hub"), QWEN_TOKENS, "<|im_end|>")
    start(*flags(base, "tf_idf", "words"), "--config", "configs/format/qwen3guard_gen.yaml")
    start("score", "words", "--json", "scores.json")
    (model,) = json.loads(Path("scores.json").read_text())["models"].values()
    assert model["unparsed"] == 0
    assert model["average"]["request"]["f1"] == 100  # "break" or "mend"


def test_a_source_that_streams_is_read_for_every_task(tiny_base: Path, start: Callable[..., str]) -> None:
    start(*flags(tiny_base, "tf_idf", "listed"))
    start(*flags(tiny_base, "tf_idf", "streamed", "tests.evaluation.test_baselines.Streamed"))
    listed, streamed = (
        [file.read_text() for file in sorted(Path(name).glob("*/generated_predictions.jsonl"))]
        for name in ("listed", "streamed")
    )
    assert listed == streamed


def test_training_prompts_that_are_tested_are_refused_or_left_out(
    tiny_base: Path, start: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = flags(tiny_base, "tf_idf", "words", "tests.evaluation.test_baselines.Contaminated")
    assert main(list(words)) == 2
    assert "training data of the baseline: 6 records" in capsys.readouterr().err
    assert not Path("words").exists()
    start(*words, "--recipe.skip_contaminated", "true")
    assert Path("words").is_dir()


def test_what_makes_no_classifier_is_refused(tiny_base: Path, refused: Callable[..., str]) -> None:
    words = flags(tiny_base, "tf_idf", "words")[:-1]
    assert "model.classifier: len()" in refused(*words, "builtins.len")


@pytest.mark.slow
def test_a_baseline_does_not_calibrate_the_base_model(
    both_speeds: Path, start: Callable[..., str], refused: Callable[..., str]
) -> None:
    start(*flags(both_speeds, "tf_idf", "held", "guardreasoner.Embedded"), "--data.split", "validation")
    before = (both_speeds / "guard.json").read_bytes()
    message = refused("calibrate", "held", "--task", "request", "--fpr", "0.2")
    assert "made by a baseline classifier" in message
    assert (both_speeds / "guard.json").read_bytes() == before
    start("calibrate", "held", "--task", "request", "--fpr", "0.2", "--out", "threshold.json")
    assert Path("threshold.json").is_file()


def test_without_labels_there_is_nothing_to_learn(tiny_base: Path, refused: Callable[..., str]) -> None:
    message = refused(*flags(tiny_base, "tf_idf", "words", "tests.evaluation.test_baselines.Unlabelled"))
    assert "no training record has a label for " + ", ".join(task.name for task in GUARD_TASKS) in message
    assert not Path("words").exists()
