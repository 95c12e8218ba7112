"""The lines of the walk-throughs in docs, typed in order, with tiny models and few records."""

import io
import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from guardreasoner.cli import LIGHTNING
from guardreasoner.cli.main import main, own_verbs
from guardreasoner.prompts import conversation, instruction
from guardreasoner.sources.released import BENCHMARKS
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.config import config_files, flags, resolve, with_config_names
from guardreasoner.workflow.config_file import load_yaml
from guardreasoner.workflow.every_model import commands_of_every_model
from guardreasoner.workflow.pipeline import Pipeline
from guardreasoner.workflow.recipe import Recipe
from tests.support.tiny import THINGS, TinySource, answer
from tests.support.walkthroughs import ROOT, Typed, typed

QUICK = {"max_new_tokens": 90, "generation_batch_size": 64, "rsft_batch_size": 8, "micro_batch_size": 8}
UPPER = {"lora": {"upper_layers": 2}}
Play = Callable[..., str]


@pytest.fixture
def play(workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Play:
    """Return a function that runs a typed command with further words, which must end with one of the codes.

    The stages that a command would start as processes are run in this process first, by the same words: that saves
    their start, and the command then finds them up to date.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("examples").symlink_to(ROOT / "examples")
    Path(".venv/bin").mkdir(parents=True)
    Path(".venv/bin/activate").touch()

    def run(command: Typed, *more: str, codes: tuple[int, ...] = (0,)) -> str:
        for name, value in command.variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", io.StringIO(command.stdin))
        words = with_config_names([*command.argv, *more])
        for argv in [*processes_of(words), words]:
            capfd.readouterr()
            code = main(list(argv))
            message = capfd.readouterr()
            assert code in codes, f"{' '.join(argv)}\n{message.err[-3000:]}"
        return message.out

    return run


def processes_of(argv: list[str]) -> list[Sequence[str]]:
    """Return the command lines of the processes that a command would start."""
    files = config_files(argv)
    if argv[0] == "run" and "--dry_run" not in argv:
        return [stage.argv for stage in Pipeline.load(Path(files[0]), files[1:]).stages.values()]
    if "--all" in argv:
        return [command.argv for command in commands_of_every_model(argv)]
    if argv[0] in ("fit", "doctor") and resolve(argv).config.get("auto_build", True):
        overlays = [file for file in files[1:] if "recipe" in load_yaml(Path(file))]
        recipe = [f"--{name}={value}" for name, value in flags(argv) if name.startswith("recipe.")]
        pipeline = Pipeline.load(Path("configs/pipeline.yaml"), overlays, recipe=recipe)
        needed = pipeline.upstream(pipeline.needed_by(resolve(argv)).values())
        return [pipeline.stages[name].argv for name in needed if name in pipeline.stale(needed)]
    return []


def overlay(name: str, recipe: Mapping[str, Any], model: Mapping[str, Any] = {}, **source: Any) -> tuple[str, str]:
    """Write an overlay with values of the recipe, the backbone and the source; return its flag."""
    trainer = {"accelerator": "cpu", "enable_progress_bar": False}
    content: dict[str, Any] = {"recipe": QUICK | recipe, "trainer": trainer}
    if model:
        content["model"] = {"init_args": {"backbone": model}}
    if source:
        content["data"] = {"init_args": {"source": source}}
    Path(name).write_text(yaml.safe_dump(content))
    return "--config", name


def rows(count: int) -> Iterator[dict[str, str]]:
    """Yield rows with a text and a label."""
    for number in range(count):
        verb, label = (("mend", "unharmful"), ("break", "harmful"))[number % 2]
        yield {"text": f"How do I {verb} the {THINGS[number % 7]} {number}?", "label": label}


def write_released(folder: Path) -> None:
    """Write eight benchmarks of few records with the outputs of two models, in the layout of docs/released-data.md."""
    for place, (name, file) in enumerate(BENCHMARKS.items()):
        records = TinySource(24).records("train")[place * 3 :][:3] if place < 8 else TinySource().records("test")
        records = [r for r in records if r.response] or records
        head = instruction(GUARD_TASKS)
        made = [{"instruction": head, "input": conversation(r), "output": r.labels["request"]} for r in records]
        (folder / "benchmarks").mkdir(parents=True, exist_ok=True)
        (folder / "benchmarks" / f"{file}.json").write_text(json.dumps(made))
        for model in ("1B", "3B"):
            output = folder / "predictions" / model / name / "generated_predictions.jsonl"
            output.parent.mkdir(parents=True)
            lines = [
                {"prompt": head + conversation(r), "label": r.labels["request"], "predict": answer(r, True)}
                for r in records
            ]
            output.write_text("".join(json.dumps(line) + "\n" for line in lines))


def between(commands: list[Typed], first: int, verbs: str) -> list[Typed]:
    """Return the commands from a place on, which have these verbs."""
    chosen = commands[first : first + len(verbs.split())]
    assert [command.argv[0] for command in chosen] == verbs.split()
    return chosen


LAPTOP = ("fit test score compare report judge lineage", "run run compare report")


PAGES = sorted(path.name for path in (ROOT / "docs").glob("walkthrough-*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_every_line_of_a_page_can_be_typed(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell accepts all lines; the verbs, configs, pipelines, recipe keys and flags of other verbs exist."""
    Path("examples").symlink_to(ROOT / "examples")
    Path(".venv/bin").mkdir(parents=True)
    Path(".venv/bin/activate").touch()
    Path("model").mkdir()
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(6)))
    known = fields(Recipe())
    for command in typed(page, workplace, workplace / "model"):
        verb, *words = with_config_names(command.argv)
        assert verb in LIGHTNING or verb in own_verbs(), command
        for file in config_files([verb, *words]):
            load_yaml(Path(file))
        if verb == "run":
            first, *overlays = config_files([verb, *words])
            assert Pipeline.load(Path(first), overlays).stages
        elif config_files([verb, *words]):
            config = resolve([verb, *words]).config
            assert set(config["recipe"]) <= {field.name for field in known}
        else:
            parser = ArgumentParser(exit_on_error=False)
            import_module(f"guardreasoner.cli.commands.{verb}").configure(parser)
            parser.parse_args(words)


@pytest.mark.slow
def test_the_demo_of_the_laptop(play: Play, both_speeds: Path) -> None:
    commands = between(typed("walkthrough-laptop.md", Path().absolute()), 0, LAPTOP[0])
    recipe = {"base": str(both_speeds), "hsdpo_batch_size": 8}
    small = overlay("small.yaml", recipe, class_path="tests.support.tiny.TinySource")
    for command in commands:
        judged = command.argv[0] == "judge"
        play(command, *(small if "--config" in command.argv else ()), codes=(0, 1) if judged else (0,))
    assert Path("logs/report.html").is_file()


@pytest.mark.slow
def test_the_real_records_of_the_laptop(play: Play, both_speeds: Path) -> None:
    commands = typed("walkthrough-laptop.md", Path().absolute())
    write_released(Path("data"))
    recipe = {"pretrained": str(both_speeds), "hsdpo_batch_size": 8, "max_length": 512, "mined_records": 8}
    small = overlay("small.yaml", recipe, UPPER)
    for command in between(commands, len(LAPTOP[0].split()), LAPTOP[1]):
        here = replace(command, variables={"GUARDREASONER_DATA": "data"})
        play(here, *(small if "--config" in command.argv else ()))
    assert Path("logs/smollm2-135m/report.html").is_file()
