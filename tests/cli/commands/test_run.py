"""The verb ``run``, with a small program for the stages."""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.cli.commands.run import configure, run
from guardreasoner.errors import InputError
from guardreasoner.workflow.pipeline import StageFailed

PROGRAM = """
import sys
from pathlib import Path
from guardreasoner.workflow.pipeline import prepare

state = prepare(sys.argv[1:], launcher=(sys.executable, __file__))
if state.command.config.get("broken"):
    sys.exit(3)
output = state.command.output
output.parent.mkdir(parents=True, exist_ok=True)
with open(output, "a") as made:
    made.write("made\\n")
state.finish()
"""

Run = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Work in a folder with the stages left and right -> both, and return a function that runs the verb."""
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("program.py").write_text(PROGRAM)
    reads = {"left": "[]", "right": "[]", "both": "['${recipe.logs}/left', '${recipe.logs}/right']"}
    for name, paths in reads.items():
        text = f"recipe: {{logs: made}}\noutput: ${{recipe.logs}}/{name}\npaths: {paths}\n"
        Path("configs", f"{name}.yaml").write_text(text)
    lines = "".join(f"  {name}: predict --config configs/{name}.yaml\n" for name in reads)
    Path("configs/pipeline.yaml").write_text(f"stages:\n{lines}")

    def with_flags(*flags: str) -> int:
        parser = argparse.ArgumentParser()
        configure(parser)
        return run(parser.parse_args(flags), (sys.executable, "program.py"))

    return with_flags


def times_made(folder: str = "made") -> dict[str, int]:
    """Return how often each stage has run."""
    return {path.name: path.read_text().count("made") for path in Path(folder).iterdir() if path.suffix != ".json"}


def test_a_second_run_does_nothing(start: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert start() == 0
    assert capfd.readouterr().out.endswith("done: 3 of 3 stages run\n")
    assert start() == 0
    assert capfd.readouterr().out == "nothing to do: 3 stages up to date\n"
    assert times_made() == {"left": 1, "right": 1, "both": 1}


@pytest.mark.slow
def test_stages_up_to_date_are_skipped_with_a_line(start: Run, capfd: pytest.CaptureFixture[str]) -> None:
    start()
    Path("configs/right.yaml").write_text(Path("configs/right.yaml").read_text() + "k: 8\n")
    capfd.readouterr()
    start()
    shown = [re.sub(r"in 0:00:\d\d", "in 0:00:00", line) for line in capfd.readouterr().out.splitlines()]
    assert shown == [
        "up to date: made/left",
        "building made/right (config changed): python -m guardreasoner predict --config configs/right.yaml",
        "built made/right in 0:00:00",
        "building made/both (input made/right changed): python -m guardreasoner predict --config configs/both.yaml",
        "built made/both in 0:00:00",
        "done: 2 of 3 stages run",
    ]
    assert times_made() == {"left": 1, "right": 2, "both": 2}


@pytest.mark.parametrize(
    ("key", "value"),
    [("micro_batch_size", "abc"), ("inference_dtype", "fp8"), ("max_cache_tokens", "0"), ("mined_records", "-3")],
)
def test_a_wrong_value_of_the_recipe_is_found_by_a_dry_run(start: Run, key: str, value: str) -> None:
    with pytest.raises(InputError, match=f"recipe.{key}"):
        start("--dry_run", f"--recipe.{key}", value)


@pytest.mark.parametrize("key", ["checkpoints", "logs"])
def test_an_empty_path_of_the_recipe_is_refused(start: Run, key: str) -> None:
    with pytest.raises(InputError, match=f"recipe.{key}: is empty"):
        start("--dry_run", f"--recipe.{key}", "")


def test_a_dry_run_builds_nothing(start: Run, capfd: pytest.CaptureFixture[str]) -> None:
    start()
    Path("configs/left.yaml").write_text(Path("configs/left.yaml").read_text() + "k: 8\n")
    capfd.readouterr()
    assert start("--dry_run") == 0
    rows = [line.split(maxsplit=2) for line in capfd.readouterr().out.splitlines()[1:]]
    assert [[word.strip() for word in row] for row in rows] == [
        ["left", "made/left", "would run   config changed"],
        ["right", "made/right", "up to date"],
        ["both", "made/both", "would run   left will be rebuilt"],
    ]
    assert times_made() == {"left": 1, "right": 1, "both": 1}


def test_from_reruns_a_stage_and_its_dependents(start: Run) -> None:
    start()
    start("--from", "right")
    assert times_made() == {"left": 1, "right": 2, "both": 2}


def test_from_builds_missing_dependencies(start: Run) -> None:
    start("--from", "both")
    assert times_made() == {"left": 1, "right": 1, "both": 1}


def test_overlays_reach_every_stage(start: Run) -> None:
    Path("other.yaml").write_text("recipe: {logs: other}\n")
    start("--config", "configs/pipeline.yaml", "--config", "other.yaml")
    assert times_made("other") == {"left": 1, "right": 1, "both": 1}
    assert not Path("made").exists()


def test_a_failing_stage_stops_the_run(start: Run) -> None:
    Path("configs/right.yaml").write_text(Path("configs/right.yaml").read_text() + "broken: true\n")
    with pytest.raises(StageFailed, match="stage right failed with exit code 3") as caught:
        start()
    assert caught.value.exit_code == 3
    assert not Path("made/both").exists()


def test_an_unknown_stage_suggests_the_nearest(start: Run) -> None:
    with pytest.raises(InputError, match="no stage 'rigth'") as caught:
        start("--from", "rigth")
    assert caught.value.hint == "did you mean right?"


@pytest.mark.parametrize("text", ["", "stages: []", "stages: {a: 1}", "stages: {a: ''}"])
def test_a_pipeline_without_stages_is_rejected(start: Run, text: str) -> None:
    Path("configs/pipeline.yaml").write_text(text)
    with pytest.raises(InputError, match="expected `stages:`"):
        start()


def test_a_stage_without_output_is_rejected(start: Run) -> None:
    Path("configs/left.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match="stage left: its config has no `output`"):
        start()


def test_a_recipe_flag_applies_to_every_stage(start: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert start("--recipe.logs", "elsewhere") == 0
    assert times_made("elsewhere") == {"left": 1, "right": 1, "both": 1}
    assert not Path("made").exists()
    capfd.readouterr()
    assert start("--recipe.logs", "elsewhere") == 0
    assert capfd.readouterr().out == "nothing to do: 3 stages up to date\n"
