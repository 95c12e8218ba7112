"""``test --all``, with a small program for the tests themselves."""

import sys
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.errors import InputError
from guardreasoner.workflow.every_model import commands_of_every_model, run_every_test, wants_every_model
from guardreasoner.workflow.manifest import Manifest

PROGRAM = """
import sys
from pathlib import Path
from guardreasoner.workflow.pipeline import prepare

state = prepare(sys.argv[1:], launcher=(sys.executable, __file__))
model = Path(state.command.config["model"]["init_args"]["backbone"]["path"])
state.command.output.mkdir(parents=True, exist_ok=True)
(state.command.output / "tested").write_text((model / "weights").read_text())
state.finish()
"""
CONFIG = """
output: {output}
model: {{class_path: some.Model, init_args: {{backbone: {{path: "${{recipe.checkpoints}}/second"}}}}}}
"""


@pytest.fixture
def argv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Work in a folder with two trained models, a base model and other folders; return ``test --all``."""
    monkeypatch.chdir(tmp_path)
    Path("program.py").write_text(PROGRAM)
    Path("pipeline.yaml").write_text("stages: {}\n")
    Path("evaluate.yaml").write_text(CONFIG.format(output="${recipe.logs}/predictions/second"))
    for name, verb, created in (
        ("second", "fit", "2026-01-02"),
        ("first", "fit", "2026-01-03"),
        ("zeroth", "fit", "2026-01-01"),
        ("base", "base-model", "2026-01-01"),
        ("second.previous", "fit", "2026-01-01"),
        (".third.partial", "fit", "2026-01-01"),
    ):
        folder = Path("checkpoints", name)
        folder.mkdir(parents=True)
        (folder / "weights").write_text(name)
        Manifest([verb], "f", {}, "content", created=created).write(folder)
    Path("checkpoints/notes").mkdir()
    return ["test", "--config", "evaluate.yaml", "--all"]


@pytest.mark.slow
def test_every_trained_model_is_tested_in_the_order_of_training(
    argv: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    launcher = (sys.executable, "program.py")
    folders = run_every_test(argv, launcher)
    assert folders == [Path("logs/predictions", name) for name in ("zeroth", "second", "first")]
    assert [(folder / "tested").read_text() for folder in folders] == ["zeroth", "second", "first"]
    assert capfd.readouterr().out.splitlines()[-1] == (
        "model 3 of 3 (missing): python -m guardreasoner test --config evaluate.yaml "
        "--model.backbone.path checkpoints/first --output logs/predictions/first"
    )

    Path("checkpoints/first/weights").write_text("changed")
    assert run_every_test(argv, launcher) == folders
    out = capfd.readouterr().out
    assert "model 2 of 3: up to date: logs/predictions/second\n" in out
    assert "model 3 of 3 (input checkpoints/first changed)" in out
    assert (folders[2] / "tested").read_text() == "changed"


def test_an_output_with_a_name_of_its_own_gets_a_folder_per_model(argv: list[str]) -> None:
    Path("evaluate.yaml").write_text(CONFIG.format(output="logs/robustness"))
    assert next(command.output for command in commands_of_every_model(argv)) == Path("logs/robustness/zeroth")


@pytest.mark.parametrize("model", ["", "model: {class_path: some.Teacher, init_args: {folder: x}}\n"])
def test_a_config_without_a_model_is_refused(model: str, argv: list[str]) -> None:
    Path("evaluate.yaml").write_text(f"output: logs/x\n{model}")
    with pytest.raises(InputError, match="names no model"):
        commands_of_every_model(argv)


def test_a_backbone_may_be_given_with_its_class(argv: list[str]) -> None:
    text = CONFIG.format(output="${recipe.logs}/predictions/second")
    with_class = 'backbone: {class_path: some.Backbone, init_args: {path: "${recipe.checkpoints}/second"}}'
    Path("evaluate.yaml").write_text(text.replace('backbone: {path: "${recipe.checkpoints}/second"}', with_class))
    assert next(command.output for command in commands_of_every_model(argv)) == Path("logs/predictions/zeroth")


@pytest.mark.parametrize("flag", ["--output", "--model.backbone.path", "--model.init_args.backbone.path"])
def test_a_single_model_or_output_is_refused(flag: str, argv: list[str]) -> None:
    with pytest.raises(InputError, match="--all cannot be combined with") as caught:
        commands_of_every_model([*argv, flag, "x"])
    assert flag in str(caught.value)


def test_without_models_nothing_is_tested(argv: list[str]) -> None:
    with pytest.raises(InputError, match="elsewhere: no model"):
        commands_of_every_model([*argv, "--recipe.checkpoints", "elsewhere"])


def test_only_the_flag_asks_for_it(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert wants_every_model(argv)
    assert not wants_every_model([*argv, "--print_config"])
    assert not wants_every_model(argv[:-1])
    assert not wants_every_model(["fit", *argv[1:]])
    Path("key.yaml").write_text("all: true\nauto_build: false\n")
    assert main(["test", "--config", "configs/evaluate.yaml", "--config", "key.yaml"]) == 2
    assert "all: expected the flag --all" in capsys.readouterr().err
