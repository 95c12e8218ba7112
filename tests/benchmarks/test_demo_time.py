"""The time of the demo by stage, measured on a repository whose demo takes no time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import report

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "demo_time.py"
MAKEFILE = """
demo: $(VENV)/installed
\t$(VENV)/bin/python -m guardreasoner fit --config configs/hsdpo.yaml
\t$(VENV)/bin/python -m guardreasoner score "R-SFT=logs/predictions/rsft"
$(VENV)/installed: pyproject.toml
\tfalse
"""
PROGRAM = """
import pathlib, sys, time
for stage in ("checkpoints/rsft", "checkpoints/hsdpo") if sys.argv[1] == "fit" else ():
    manifest = pathlib.Path(stage, "manifest.json")
    if stage.endswith("hsdpo") or not manifest.exists():
        time.sleep(SECONDS)
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.with_name("cost.manifest.json").write_text("{}")
        manifest.write_text("{}")
"""


def git(folder: Path, *words: str) -> None:
    user = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    subprocess.run(["git", "-C", str(folder), *user, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose first commit has the slower demo."""
    folder = tmp_path / "repository"
    (folder / "guardreasoner").mkdir(parents=True)
    (folder / "guardreasoner" / "__init__.py").touch()  # else the installed package would run
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "pyproject.toml").touch()
    git(folder, "init", "-q", "-b", "main")
    for seconds, tag in ((0.6, "slow"), (0.1, "fast")):
        (folder / "guardreasoner" / "__main__.py").write_text(PROGRAM.replace("SECONDS", str(seconds)))
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", tag)
        git(folder, "tag", tag)
    return folder


def run(repository: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--repository", str(repository), "--repeats", "1", *flags]
    inside_make = os.environ | {"MAKELEVEL": "1"}  # there, make also prints the folders that it enters
    return subprocess.run(command, capture_output=True, text=True, env=inside_make)


def test_each_stage_is_timed_and_only_the_last_one_runs_again(repository: Path, tmp_path: Path) -> None:
    done = run(repository, "--against", "slow", "--json", str(tmp_path / "demo.json"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "demo.json").read_text())
    (now,), (before,) = result["runs"]["now"], result["runs"]["before"]
    assert list(now) == list(before) == ["checkpoints/rsft", "checkpoints/hsdpo", "score", "second fit"]
    assert before["checkpoints/rsft"] > 0.6 > now["checkpoints/hsdpo"]
    assert before["checkpoints/hsdpo"] > 0.6  # its two manifests are one stage
    assert before["second fit"] < before["checkpoints/rsft"] + before["checkpoints/hsdpo"]
    page = report.page([result])
    assert "| checkpoints/rsft | " in page
    assert "time of the second fit / that at slow" in page


def test_an_unknown_commit_is_one_line(repository: Path) -> None:
    done = run(repository, "--against", "no-such-commit")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no-such-commit: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_failed_stage_is_named_with_its_error(repository: Path) -> None:
    program = 'import sys; sys.exit("error: no such model\\nhint: make one")'
    (repository / "guardreasoner" / "__main__.py").write_text(program)
    git(repository, "commit", "-q", "-a", "-m", "failing")
    done = run(repository, "--against", "slow")
    assert done.returncode == 1
    assert "guardreasoner fit --config configs/hsdpo.yaml: exit code 1: error: no such model" in done.stderr


def test_the_repeats_before_a_failure_are_kept(repository: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"  # of commands: three a demo, twice a repeat
    limit = f"import pathlib, sys\ncount = pathlib.Path({str(count)!r})\n"
    limit += "with count.open('a') as file:\n    file.write('.')\n"
    limit += "if count.stat().st_size > 8:\n    sys.exit('error: full')\n"
    program = repository / "guardreasoner" / "__main__.py"
    program.write_text(limit + program.read_text())
    git(repository, "commit", "-q", "-a", "-m", "limited")
    done = run(repository, "--against", "HEAD", "--repeats", "2", "--json", str(tmp_path / "demo.json"))
    assert done.returncode == 1
    assert "error: full" in done.stderr
    assert [len(runs) for runs in json.loads((tmp_path / "demo.json").read_text())["runs"].values()] == [1, 1]
