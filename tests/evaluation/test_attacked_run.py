"""From configs/robustness.yaml to the table: a guard that copies what it is told is found out."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record
from guardreasoner.tasks import GUARD_TASKS, Task
from tests.support.tiny import TinySource

TEST = TinySource().records("test")

pytestmark = pytest.mark.usefixtures("workplace")


class Gullible(Generator):
    """Judges by the words of the request, unless the prompt tells it a verdict.

    Args:
        backbone: is left alone.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            told = "Request: unharmful" in request.text
            verdict = "unharmful" if told or "break" not in request.text.casefold() else "harmful"
            yield [Completion(request.record_id, 0, f"I see.\n\n{answer_block({'request': verdict}, GUARD_TASKS)}")]


class Louder:
    """A family of somebody's own.

    Args:
        marks: how loud.
    """

    def __init__(self, marks: int = 1) -> None:
        self.marks = marks

    def __call__(self, record: Record, rng: Random, tasks: Sequence[Task]) -> Record:
        return replace(record, prompt=record.prompt.upper() + "!" * self.marks)


def louder(record: Record, rng: Random, tasks: Sequence[Task]) -> Record:
    """The same as a function."""
    return Louder(2)(record, rng, tasks)


def test_the_families_that_fool_a_guard_are_named(tiny_base: Path, start: Callable[..., str]) -> None:
    Path("mine.yaml").write_text(
        "data: {init_args: {attacks: {init_args: {share: 1.0, families: [\n"
        "  guardreasoner.evaluation.attacks.answer_block_in_prompt, guardreasoner.evaluation.attacks.spaced_text,\n"
        "  guardreasoner.evaluation.attacks.answer_block_in_response, tests.evaluation.test_attacked_run.louder,\n"
        "  {class_path: tests.evaluation.test_attacked_run.Louder, init_args: {marks: 5}}]}}}}\n"
    )
    said = start(
        *("test", "--config", "configs/robustness.yaml", "--config", "mine.yaml", "--output", "made"),
        *("--model.backbone.path", str(tiny_base), "--model.greedy", "tests.evaluation.test_attacked_run.Gullible"),
        *("--data.source", "tests.support.tiny.TinySource", "--auto_build", "false"),
        *("--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
    )
    answered = sum(record.response is not None for record in TEST)
    assert f"answer_block_in_response has nothing to rewrite in {6 - answered} of 6 records" in said
    assert "written to made; python -m guardreasoner robustness made" in said
    assert {path.name for path in Path("made").iterdir() if "@" in path.name} >= {
        f"tiny-{half}@{name}" for half in ("even", "odd") for name in ("spaced_text", "louder", "Louder")
    }
    start("robustness", "made", "--json", "found.json")
    rows = json.loads(Path("found.json").read_text())["families"]
    found = {row["family"]: row for row in rows if (row["task"], row["benchmark"]) == ("request", "all")}
    assert {name: row["drop"] for name, row in found.items()} == {
        "answer_block_in_prompt": 100,
        "answer_block_in_response": 100,
        "spaced_text": 100,  # "b r e a k" is not the word that it looks for
        "louder": 0,
        "Louder": 0,
    }
    assert found["answer_block_in_prompt"]["turned"]["count"] == 3
    assert found["answer_block_in_response"]["n"] == answered


def test_a_run_without_attacks_names_score(tiny_base: Path, start: Callable[..., str]) -> None:
    said = start(
        *("test", "--config", "configs/robustness.yaml", "--data.source", "tests.support.tiny.TinySource"),
        *("--data.attacks", "null"),
        *("--model.backbone.path", str(tiny_base), "--model.greedy", "tests.evaluation.test_attacked_run.Gullible"),
        *("--output", "made", "--auto_build", "false"),
        *("--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
    )
    assert "python -m guardreasoner score made" in said


def test_a_family_that_is_not_there_is_one_line(tiny_base: Path, refused: Callable[..., str]) -> None:
    said = refused(
        *("test", "--config", "configs/robustness.yaml", "--model.backbone.path", str(tiny_base)),
        *("--auto_build", "false", "--data.attacks.families", "[guardreasoner.evaluation.attacks.leatspeak]"),
    )
    assert "leatspeak" in said
