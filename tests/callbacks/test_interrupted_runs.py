"""Commands that are killed, stopped, or started twice end with the same bytes."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.cli.main import main
from tests.support.kill_once import outputs
from tests.support.tiny import command

ROOT = Path(__file__).parents[2]


def carry_out(base: Path, folder: Path, plans: Sequence[str]) -> list[str]:
    """Run the loop in a process that has used no threads yet; return the summaries of the plans."""
    command = [sys.executable, "-m", "tests.support.kill_loop", str(base), str(folder), *plans]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "interrupted" in line or "refused" in line]


def test_interrupted_runs_resume_and_a_second_run_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    plans = ["test:SIGKILL:3", "test:SIGTERM:1", "test:SIGINT:1", "predict:SIGTERM:1", "predict:SIGINT:1"]
    *stopped, twice = carry_out(tiny_base, tmp_path, [*plans, "predict:SECOND:1"])
    assert [line.split(":")[0] for line in stopped] == [" ".join(plan.split(":")[:2]) for plan in plans]
    assert twice == "predict started twice: 1 of 1 refused"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "more", "counts"),
    [
        ("mine", ("--model.k", "2"), "24 of 24 records are done"),
        ("evaluate", ("--data.rollouts", "null"), "6 of 6 records and 0 of 0 hard records are done"),
    ],
)
def test_a_kill_before_the_manifest_loses_no_answer(
    stage: str,
    more: tuple[str, ...],
    counts: str,
    tiny_base: Path,
    workplace: Path,
    start: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    engine = {"mine": "generator", "evaluate": "greedy"}[stage]
    argv = command(stage, tiny_base, *more, f"--model.{engine}.max_new_tokens", "4")
    with monkeypatch.context() as patch:
        patch.setattr("guardreasoner.workflow.staleness.Manifest.write", killed)
        assert main(list(argv)) == 130
    before = outputs(Path("made"))
    assert f"resuming: {counts}" in start(*argv)
    assert outputs(Path("made")) == before
    assert [path.name for path in workplace.iterdir() if path.name != "configs"] == ["made"]


@pytest.mark.slow
def test_many_kills_at_random_moments_change_no_byte(tiny_base: Path, tmp_path: Path) -> None:
    lines = carry_out(tiny_base, tmp_path, ["predict:SIGKILL:8", "test:SIGKILL:8", "predict:SECOND:4"])
    assert all(int(line.split()[-2]) > 1 for line in lines[:2])  # resumed
