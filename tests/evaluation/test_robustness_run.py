"""End to end, from configs/robustness.yaml to the table of families, with a guard that obeys injected verdicts."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from guardreasoner.cli.next_command import next_command
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record
from guardreasoner.tasks import GUARD_TASKS, Task
from tests.support.tiny import TinySource

TEST = TinySource().records("test")

pytestmark = pytest.mark.usefixtures("workplace")


class Gullible(Generator):
    """Judges a request by the word "break", unless the prompt contains a verdict, which it then copies.

    Args:
        backbone: the backbone, which is not used.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            is_told = "Request: unharmful" in request.text
            verdict = "unharmful" if is_told or "break" not in request.text.casefold() else "harmful"
            yield [Completion(request.record_id, 0, f"I see.\n\n{answer_block({'request': verdict}, GUARD_TASKS)}")]


class Shouting:
    """A user-defined family: upper case with exclamation marks.

    Args:
        marks: number of exclamation marks.
    """

    def __init__(self, marks: int = 1) -> None:
        self.marks = marks

    def __call__(self, record: Record, rng: Random, tasks: Sequence[Task]) -> Record:
        return record.with_texts(prompt=record.prompt.upper() + "!" * self.marks)


def louder(record: Record, rng: Random, tasks: Sequence[Task]) -> Record:
    """``Shouting`` as a function."""
    return Shouting(2)(record, rng, tasks)


def test_families_that_fool_the_guard_have_a_drop(tiny_base: Path, start: Callable[..., str]) -> None:
    Path("attacks.yaml").write_text(
        "data: {init_args: {attacks: {init_args: {share: 1.0, families: [\n"
        "  guardreasoner.evaluation.attacks.answer_block_in_prompt, guardreasoner.evaluation.attacks.spaced_text,\n"
        "  guardreasoner.evaluation.attacks.answer_block_in_response, tests.evaluation.test_robustness_run.louder,\n"
        "  {class_path: tests.evaluation.test_robustness_run.Shouting, init_args: {marks: 5}}]}}}}\n"
    )
    argv = (
        *("test", "--config", "configs/robustness.yaml", "--config", "attacks.yaml", "--output", "predictions"),
        *("--model.backbone.path", str(tiny_base), "--model.greedy", "tests.evaluation.test_robustness_run.Gullible"),
        *("--data.source", "tests.support.tiny.TinySource", "--auto_build", "false"),
        *("--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
    )
    output = start(*argv)
    answered = sum(record.response is not None for record in TEST)
    assert f"answer_block_in_response has nothing to rewrite in {6 - answered} of 6 records" in output
    assert next_command(argv) == ["robustness", "predictions"]
    assert {path.name for path in Path("predictions").iterdir() if "@" in path.name} >= {
        f"tiny-{half}@{name}" for half in ("even", "odd") for name in ("spaced_text", "louder", "Shouting")
    }
    start("robustness", "predictions", "--json", "drops.json")
    rows = json.loads(Path("drops.json").read_text())["families"]
    rows_by_family = {row["family"]: row for row in rows if (row["task"], row["benchmark"]) == ("request", "all")}
    assert {name: row["drop"] for name, row in rows_by_family.items()} == {
        "answer_block_in_prompt": 100,
        "answer_block_in_response": 100,
        "spaced_text": 100,  # "b r e a k" is not the word "break"
        "louder": 0,
        "Shouting": 0,
    }
    assert rows_by_family["answer_block_in_prompt"]["flipped"]["count"] == 3
    assert rows_by_family["answer_block_in_response"]["n"] == answered


def test_run_without_attacks_points_to_score(tiny_base: Path, start: Callable[..., str]) -> None:
    argv = (
        *("test", "--config", "configs/robustness.yaml", "--data.source", "tests.support.tiny.TinySource"),
        *("--data.attacks", "null"),
        *("--model.backbone.path", str(tiny_base), "--model.greedy", "tests.evaluation.test_robustness_run.Gullible"),
        *("--output", "predictions", "--auto_build", "false"),
        *("--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
    )
    start(*argv)
    assert next_command(argv) == ["score", "predictions"]


def test_unknown_family_is_one_line(tiny_base: Path, refused: Callable[..., str]) -> None:
    output = refused(
        *("test", "--config", "configs/robustness.yaml", "--model.backbone.path", str(tiny_base)),
        *("--auto_build", "false", "--data.attacks.families", "[guardreasoner.evaluation.attacks.leatspeak]"),
    )
    assert "leatspeak" in output
