"""The lines of the walk-throughs in docs, typed in order, with tiny models and few records."""

import io
import json
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
import yaml

from guardreasoner.cli import LIGHTNING
from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.cli.main import main, own_verbs
from guardreasoner.prompts import conversation, instruction
from guardreasoner.records import write_jsonl
from guardreasoner.sources.guardreasoner_train import PARTS
from guardreasoner.sources.released import BENCHMARKS
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.config import config_files, flags, resolve, with_config_names
from guardreasoner.workflow.config_file import load_yaml
from guardreasoner.workflow.every_model import commands_of_every_model
from guardreasoner.workflow.pipeline import Pipeline
from guardreasoner.workflow.recipe import Recipe
from tests.support.fake_server import FakeServer
from tests.support.hub_folders import stay_offline, write_readme, write_rows
from tests.support.served import served
from tests.support.tiny import THINGS, TinySource, answer
from tests.support.walkthroughs import ROOT, Typed, typed

QUICK = {"max_new_tokens": 90, "generation_batch_size": 64, "rsft_batch_size": 8, "micro_batch_size": 8}
UPPER = {"lora": {"upper_layers": 2}}
TEMPLATE = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}<|assistant|>"
Play = Callable[..., str]


@pytest.fixture
def play(workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Play:
    """Return a function that runs a typed command with further words, which must end with one of the codes.

    The stages that a command would start as processes are run in this process first, by the same words: that saves
    their start, and the command then finds them up to date. The function returns what was written to standard error.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("examples").symlink_to(ROOT / "examples")
    Path(".venv/bin").mkdir(parents=True)
    Path(".venv/bin/activate").touch()

    def run(command: Typed, *more: str, codes: tuple[int, ...] = (0,)) -> str:
        for name, value in command.variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(command.stdin.encode())))
        words = with_config_names([*command.argv, *more])
        for argv in [*processes_of(words), words]:
            capfd.readouterr()
            code = main(list(argv))
            message = capfd.readouterr()
            assert code in codes, f"{' '.join(argv)}\n{message.err[-3000:]}"
        return message.err

    return run


@pytest.fixture
def hub_model(both_speeds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in the form in which hubs hold it: with a chat template, without a format of ours."""
    folder = Path(shutil.copytree(both_speeds, tmp_path_factory.mktemp("hub") / "model"))
    for file in ("guard.json", "manifest.json"):
        (folder / file).unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return folder


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


def serves(command: Typed) -> None:
    """Start a service at any free port, ask it for its tasks, and stop it."""
    verb, folder, *flags = command.argv
    opener = build_opener(ProxyHandler({}))
    with (
        served("guardreasoner", verb, str(Path(folder).absolute()), *flags, "--port", "0") as (_, port),
        opener.open(f"http://127.0.0.1:{port}/v1/guard", timeout=60) as reply,
    ):
        assert json.load(reply)["tasks"]


LAPTOP = ("fit test score compare report judge lineage", "run run compare report")
OWN = "doctor plan fit test test score compare judge judge serve"


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


@pytest.mark.slow
def test_the_own_rows_of_the_laptop(play: Play, hub_model: Path) -> None:
    commands = typed("walkthrough-laptop.md", Path().absolute())
    lines = [",".join(row.values()) for row in rows(60)]
    Path("rows.csv").write_text("\n".join(["text,label", *lines]))
    small = overlay("small.yaml", {"pretrained": str(hub_model), "max_length": 2000}, UPPER)
    for command in between(commands, len(" ".join(LAPTOP).split()), OWN):
        if command.argv[0] == "serve":
            serves(command)
            continue
        judged = command.argv[0] == "judge"
        play(command, *(small if "--config" in command.argv else ()), codes=(0, 1) if judged else (0,))


@pytest.mark.slow
def test_one_card_with_24_gb(play: Play, hub_model: Path) -> None:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(60)))
    recipe = {"rsft_lr": 1e-2, "rsft_epochs": 6, "hsdpo_batch_size": 8, "max_length": 512}
    small = overlay("small.yaml", recipe, {"format": {"opening": "Judge."}})
    teaching = overlay("teaching.yaml", recipe)  # a teacher has no prompt format
    with FakeServer(say=teacher) as server:
        for command in typed("walkthrough-24gb.md", Path().absolute(), hub_model):
            verb, *words = command.argv
            more = () if "--config" not in words else teaching if "synthesize" in words else small
            if verb == "calibrate":
                # whether scores of six records allow a threshold depends on rounding; the command says why not
                told = play(command, "--fpr", "0.5", "--miss_rate", "0.5", codes=(0, 2))
                assert not told or re.search("score|no threshold reaches", told), told
                continue
            if verb == "serve":
                serves(command)
                continue
            here = replace(command, variables=command.variables | {"OPENAI_BASE_URL": server.base_url})
            play(here, *more, codes=(0, 1) if verb == "judge" else (0,))
    assert json.loads(Path("checkpoints/card/hsdpo/adapter_config.json").read_text())["r"] == 16
    assert Path("pairs.jsonl").read_text().count("\n") > 0


def teacher(prompt: str, times: int) -> str:
    """Return reasoning for one task, with the verdict that the prompt settles."""
    (label,) = re.findall(r"^Request: (\w+)$", prompt, re.MULTILINE)[:1]
    return f"# Task 1\n## Reasoning Step 1: I look at it.\n\nAnswers:\nRequest: {label}"


@pytest.mark.slow
def test_eight_gpus(play: Play, both_speeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_offline(Path().absolute(), monkeypatch)
    write_traces(Path("traces"))
    write_jsonl("test.jsonl", TinySource().records("test"))
    sources = [
        {"class_path": "guardreasoner.GuardReasonerTrain", "init_args": {"path": "traces", "parts": "${recipe.parts}"}},
        {"class_path": "guardreasoner.Files", "init_args": {"test": "test.jsonl"}},
    ]
    small = overlay(
        "small.yaml", {"hsdpo_batch_size": 8}, class_path="guardreasoner.Concat", init_args={"sources": sources}
    )
    one = ("--trainer.devices", "1", "--trainer.strategy", "auto")
    two = ("--trainer.devices", "2", "--trainer.strategy.init_args.compute_dtype", "null")
    for command in typed("walkthrough-cluster.md", Path().absolute(), both_speeds):
        verb, *words = command.argv
        if "SLURM_NNODES" in command.variables:
            parses_on_a_node(command, monkeypatch)
        elif "checkpoints/trial" in words:
            argv = [sys.executable, "-m", "guardreasoner", verb, *words, *small, *two]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=1200)
            assert done.returncode == 0, done.stderr[-3000:]
            assert Path("checkpoints/trial/model.safetensors").is_file()
        elif verb == "plan":
            play(command, *small)  # needs none of its eight devices
        elif "trainer/fsdp2" in words or "trainer/ddp" in words:
            play(command, *small, *one)
        else:
            play(command, *(small if "--config" in words and verb != "run" else ()))
    assert Path("pairs.jsonl").read_text().count("\n") > 0


def parses_on_a_node(command: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a job's command as the first of its sixteen processes would, without its GPU."""
    with monkeypatch.context() as slurm:
        for name, value in command.variables.items():
            slurm.setenv(name, value)
        verb, *words = with_config_names([*command.argv, "--trainer.accelerator", "cpu"])
        config = GuardCLI(verb, words, parse_only=True).config
        assert (int(config.trainer.devices), config.trainer.num_nodes) == (8, 2)
        assert config.data.init_args.source.class_path.endswith(".Concat")


def write_traces(folder: Path) -> None:
    """Write GuardReasonerTrain with six rows in each of its four parts."""
    files = {part: f"{part.removesuffix('R')}-R.json" for part in PARTS}
    write_readme(folder, {"default": files})
    records = TinySource().records("train")
    for place, file in enumerate(files.values()):
        traces = [
            {"instruction": instruction(GUARD_TASKS), "input": conversation(record), "output": answer(record, True)}
            for record in records[place::4]
        ]
        write_rows(folder / file, traces)
