"""The stage graph, with real processes."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.pipeline import StageFailed, prepare
from tests.support.chain import build, change, lay_out, load, runs


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Work in the folder of the chain and return the launcher of a stage."""
    return lay_out(tmp_path, monkeypatch)


def test_stages_are_built_in_order_and_only_once(launcher: tuple[str, ...]) -> None:
    assert list(load(launcher).stages) == ["first", "second", "third"]
    assert build(launcher) == ["made/first", "made/second", "made/third"]
    assert Path("made/third/made.txt").read_text() == "seed111"
    assert build(launcher) == []


def test_independent_stages_keep_their_order(launcher: tuple[str, ...]) -> None:
    extra = "".join(f"  {name}: fit --config configs/third.yaml --output made/{name}\n" for name in ("aside", "b"))
    change("configs/pipeline.yaml", "stages:\n", f"stages:\n{extra}")
    assert list(load(launcher).stages) == ["first", "second", "aside", "b", "third"]


def test_a_changed_config_rebuilds_the_stage_and_its_dependents(launcher: tuple[str, ...]) -> None:
    build(launcher)
    change("configs/second.yaml", "size: 1", "size: 2")
    pipeline = load(launcher)
    assert pipeline.stale(list(pipeline.stages)) == {"second": "config changed", "third": "second will be rebuilt"}
    assert build(launcher) == ["made/second", "made/third"]
    assert Path("made/third/made.txt").read_text() == "seed121"


def test_an_identical_rebuild_makes_nothing_stale(launcher: tuple[str, ...]) -> None:
    change("configs/first.yaml", "auto_build", "limit: 4\nauto_build")
    build(launcher)
    Path("seed.txt").write_text("seed, and more that is cut off")
    assert build(launcher) == ["made/first"]


def test_prepare_builds_what_the_command_needs(launcher: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["fit", "--config", "configs/third.yaml", "--model.size", "9", "--output", "made/mine"]
    state = prepare(argv, launcher=launcher)
    assert runs() == ["made/first", "made/second"]
    shown = [re.sub(r"in 0:00:\d\d", "in 0:00:00", line) for line in capfd.readouterr().out.splitlines()]
    assert shown == [
        "building what is missing or out of date (pipeline configs/pipeline.yaml)",
        "building made/first (missing): python -m guardreasoner fit --config configs/first.yaml",
        "built made/first in 0:00:00",
        "building made/second (missing): python -m guardreasoner fit --config configs/second.yaml",
        "built made/second in 0:00:00",
    ]
    assert state is not None
    assert list(state.inputs) == ["made/second"]
    prepare(argv, launcher=launcher)
    assert runs() == []
    assert capfd.readouterr().out == ""


def test_an_unknown_flag_is_reported_before_the_build(
    launcher: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    def check(argv: Sequence[str]) -> None:
        if "--typo" in argv:
            raise InputError("unknown key 'typo'")

    with pytest.raises(InputError, match="unknown key 'typo'"):
        prepare(["fit", "--config", "configs/third.yaml", "--typo", "1"], check, launcher=launcher)
    assert runs() == []


@pytest.mark.parametrize("flags", [["--help"], ["-h"], ["--print_config"], ["--print_config=skip_null"]])
def test_help_builds_nothing(launcher: tuple[str, ...], flags: list[str]) -> None:
    assert prepare(["fit", "--config", "configs/third.yaml", *flags], launcher=launcher) is None
    assert prepare(["fit", "--model.size", "3"], launcher=launcher) is None
    assert runs() == []


def test_later_processes_of_a_run_build_nothing(launcher: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert prepare(["fit", "--config", "configs/third.yaml"], launcher=launcher) is None
    assert runs() == []


def test_a_fast_dev_run_writes_no_manifest(launcher: tuple[str, ...]) -> None:
    argv = ["fit", "--config", "configs/third.yaml", "--trainer.fast_dev_run", "true"]
    assert prepare(argv, launcher=launcher) is None
    assert runs() == ["made/first", "made/second"]


def test_without_a_pipeline_nothing_is_built(launcher: tuple[str, ...]) -> None:
    Path("configs/pipeline.yaml").unlink()
    assert prepare(["fit", "--config", "configs/third.yaml"], launcher=launcher) is not None
    assert runs() == []


def test_an_overlay_applies_to_every_stage(launcher: tuple[str, ...]) -> None:
    Path("configs/big.yaml").write_text("recipe: {folder: big}\nmodel: {init_args: {size: 8}}\n")
    Path("configs/only-here.yaml").write_text("model: {init_args: {size: 7}}\n")
    files = ["configs/third.yaml", "configs/big.yaml", "configs/only-here.yaml"]
    prepare(["fit", *(word for file in files for word in ("--config", file))], launcher=launcher)
    assert runs() == ["big/first", "big/second"]
    assert Path("big/second/made.txt").read_text() == "seed88"
    manifest = Manifest.read("big/second")
    assert manifest is not None
    assert manifest.command == ["fit", "--config", "configs/second.yaml", "--config", "configs/big.yaml"]


def test_flags_of_a_stage_override_an_overlay(launcher: tuple[str, ...]) -> None:
    Path("configs/big.yaml").write_text("recipe: {folder: big}\nmodel: {init_args: {size: 8}}\n")
    change("configs/pipeline.yaml", "first.yaml", "first.yaml --model.size 3 --output ${recipe.folder}/flag")
    first = load(launcher, "configs/big.yaml").stages["first"]
    assert first.output == Path("big/flag")
    assert first.config["model"]["init_args"] == {"size": 3}


def test_without_auto_build_the_commands_are_named(launcher: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        prepare(["fit", "--config", "configs/third.yaml", "--auto_build", "false"], launcher=launcher)
    assert str(caught.value) == "made/second is missing (paths)"
    assert caught.value.hint == (
        "build it with python -m guardreasoner fit --config configs/first.yaml"
        " && python -m guardreasoner fit --config configs/second.yaml"
    )
    assert runs() == []


def test_without_auto_build_stale_inputs_are_used(launcher: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    build(launcher)
    Path("seed.txt").write_text("another seed")
    capfd.readouterr()
    assert prepare(["fit", "--config", "configs/third.yaml", "--auto_build", "false"], launcher=launcher)
    assert runs() == []
    assert capfd.readouterr().err == "warning: using made/second although it is out of date (first is out of date)\n"


def test_a_failing_stage_stops_with_its_exit_code(launcher: tuple[str, ...]) -> None:
    change("configs/second.yaml", "auto_build", "fail: 7\nauto_build")
    with pytest.raises(StageFailed, match="stage second failed with exit code 7: python -m") as caught:
        build(launcher)
    assert caught.value.exit_code == 7
    assert runs() == ["made/first", "made/second"]


def test_a_stage_without_result_has_failed(launcher: tuple[str, ...]) -> None:
    change("configs/first.yaml", "auto_build", "silent: true\nauto_build")
    with pytest.raises(StageFailed, match=r"stage first did not write its output \(missing\)"):
        build(launcher)


def test_an_input_that_changes_while_a_stage_runs_makes_it_out_of_date(launcher: tuple[str, ...]) -> None:
    change("configs/first.yaml", "auto_build", "edits: seed.txt\nauto_build")
    with pytest.raises(StageFailed, match=r"stage first is out of date again \(input seed.txt changed\): python -m"):
        build(launcher)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_to_the_stage(number: signal.Signals, launcher: tuple[str, ...]) -> None:
    change("configs/first.yaml", "auto_build", "wait: 60\nauto_build")
    build = subprocess.Popen([*launcher, "fit", "--config", "configs/second.yaml"])
    while not Path("pid").exists():
        time.sleep(0.02)
    build.send_signal(number)
    assert build.wait(timeout=20) == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("pid").read_text()), 0)


def test_cyclic_stages_are_rejected(launcher: tuple[str, ...]) -> None:
    change("configs/first.yaml", "seed.txt", "made/third")
    with pytest.raises(InputError, match=r"cyclic dependencies: .*first needs third"):
        load(launcher)


def test_two_stages_with_one_output_are_rejected(launcher: tuple[str, ...]) -> None:
    change("configs/second.yaml", "output: ${recipe.folder}/second", "output: ./made/first/")
    with pytest.raises(InputError, match="stages second and first both write"):
        load(launcher)


def test_a_file_inside_an_output_is_a_dependency(launcher: tuple[str, ...]) -> None:
    change("configs/third.yaml", "${recipe.folder}/second", "${recipe.folder}/second/made.txt")
    pipeline = load(launcher)
    assert pipeline.needs["third"] == ("second",)
    build(launcher)
    assert Path("made/third/made.txt").read_text() == "seed111"


@pytest.mark.parametrize("auto_build", ["true", "false"])
def test_the_output_of_another_command_is_used(
    auto_build: str, launcher: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    build(launcher)
    subprocess.run([*launcher, "fit", "--config", "configs/second.yaml", "--model.size", "9"], check=True)
    change("configs/first.yaml", "size: 1", "size: 5")
    assert runs() == ["made/second"]
    capfd.readouterr()
    words = ["fit", "--config", "configs/third.yaml", "--auto_build", auto_build]
    assert prepare(words, launcher=launcher) is not None
    assert runs() == []
    assert Path("made/second/made.txt").read_text() == "seed19"
    line = (
        "using made/second as it is: made by python -m guardreasoner fit --config configs/second.yaml --model.size 9\n"
    )
    assert capfd.readouterr() == (line, "")


def test_validating_writes_no_manifest(launcher: tuple[str, ...]) -> None:
    build(launcher)
    before = Manifest.read("made/third")
    assert prepare(["validate", "--config", "configs/third.yaml"], launcher=launcher) is None
    assert Manifest.read("made/third") == before
    assert sorted(path.name for path in Path("made").iterdir()) == ["first", "second", "third"]


def test_a_command_line_with_an_open_quote_is_rejected(launcher: tuple[str, ...]) -> None:
    change("configs/pipeline.yaml", "fit --config configs/first.yaml", 'fit --config "configs/first.yaml')
    with pytest.raises(InputError, match="stage first: not a command line: No closing quotation"):
        load(launcher)


def test_the_command_in_a_manifest_cannot_control_the_terminal(
    launcher: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    build(launcher)
    made = Manifest.read("made/second")
    assert made is not None
    replace(made, command=["fit", "\x1b[2J"], fingerprint="other", config=None).write("made/second")
    capfd.readouterr()
    prepare(["fit", "--config", "configs/third.yaml"], launcher=launcher)
    shown = capfd.readouterr().out
    assert "using made/second as it is" in shown
    assert "\x1b" not in shown
