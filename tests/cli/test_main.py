"""The command line: verbs, help, user errors, exit codes."""

import os
import subprocess
import sys
import time
import tomllib
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.cli.main import LIGHTNING, main, own_verbs
from guardreasoner.errors import InputError
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.staleness import status

HEAVY = "torch", "lightning", "transformers", "omegaconf", "rich"


def test_help_lists_every_verb_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb in [*LIGHTNING, *own_verbs()]:
        assert any(line.split()[:1] == [verb] and len(line.split()) > 2 for line in lines), verb
    assert "run" in own_verbs()
    assert max(map(len, lines)) <= 120


def test_no_verb_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: python -m guardreasoner VERB" in capsys.readouterr().out


def test_the_installed_command_finds_modules_in_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "own_loss.py").write_text("print('imported')")
    script = tmp_path / "bin" / "script.py"
    script.parent.mkdir()
    script.write_text("from guardreasoner.cli import main\nmain.main = lambda: __import__('own_loss')\nmain.start()\n")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("imported\n", "")


def test_unexpected_errors_of_the_installed_command_are_shown_like_everything_else() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    module, _, function = project["project"]["scripts"]["guardreasoner"].partition(":")
    script = f"from {module} import {function}; {function}(); raise ValueError('\\x1b[31m')"
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ValueError: " in done.stderr
    assert "\x1b" not in done.stderr


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from guardreasoner.cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 2
    assert not set(HEAVY) & set(done.stderr.split())


def test_the_pipeline_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1")
    script = (
        "import sys; from guardreasoner.workflow.pipeline import prepare; prepare(['fit', '--config', 'a.yaml']);"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not {"torch", "lightning", "transformers"} & set(done.stderr.split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fti"], "error: unknown verb 'fti'\nhint: did you mean fit?\n"),
        (["xyzzy"], "error: unknown verb 'xyzzy'\nhint: python -m guardreasoner --help lists the verbs\n"),
        (["run", "--dryrun"], "error: run: unknown option --dryrun\nhint: did you mean --dry_run?\n"),
        (["run", "stray"], "error: run: unrecognized arguments: stray\nhint: python -m guardreasoner run --help lists"),
        (["run", "--from"], "error: run: argument --from: expected one argument\nhint: python -m guardreasoner run"),
        (["run", "--config", "absent.yaml"], "error: --config absent.yaml: no such file\n"),
    ],
)
def test_a_user_error_is_one_line_and_a_hint(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert captured.err.count("\n") <= 2
    assert captured.out == ""


def test_a_closed_pipe_is_not_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "guardreasoner", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Work in a folder with a config and return a function that replaces Lightning by a scripted training."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("output: made/a\n")

    def install(train: Callable[[], None]) -> None:
        cli = types.ModuleType("guardreasoner.cli.lightning_cli")
        cli.run_lightning = lambda argv: train()  # type: ignore[attr-defined]
        cli.check_config = lambda argv: None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "guardreasoner.cli.lightning_cli", cli)

    return install


def make() -> None:
    """Write the output that a.yaml names."""
    Path("made/a").mkdir(parents=True)
    Path("made/a/weights").write_text("1")


def test_a_successful_run_writes_a_manifest(trainer: Callable[[Callable[[], None]], None]) -> None:
    trainer(make)
    assert main(["fit", "--config", "a.yaml"]) == 0
    manifest = Manifest.read("made/a")
    assert manifest is not None
    assert manifest.command == ["fit", "--config", "a.yaml"]
    assert status(resolve(["fit", "--config", "a.yaml"])) is None
    assert os.listdir("made") == ["a"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("bad record", "look at it"), 2, "error: bad record\nhint: look at it\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_failed_run_writes_no_manifest(
    error: BaseException,
    code: int,
    message: str,
    trainer: Callable[[Callable[[], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    trainer(fail)
    assert main(["fit", "--config", "a.yaml"]) == code
    assert capsys.readouterr().err == message
    assert not os.path.exists("made")


def test_an_interrupted_run_is_unfinished(trainer: Callable[[Callable[[], None]], None]) -> None:
    def half() -> None:
        make()
        raise KeyboardInterrupt

    trainer(half)
    assert main(["fit", "--config", "a.yaml"]) == 130
    assert status(resolve(["fit", "--config", "a.yaml"])) == "unfinished"
