"""Fits that are killed with SIGKILL end as uninterrupted ones, and the comparison notices planted faults.

These are the first trials of the campaign (``benchmarks/reliability``), run by its own command.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from reliability.journal import Journal, Result

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def campaign(folder: Path, part: str, target: int) -> list[Result]:
    """Run a part of the campaign until it has reached a number, and return its results."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])}
    argv = [sys.executable, "-m", "reliability", part, "--target", str(target)]
    argv += ["--results", str(folder), "--page", str(folder / "page.md")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=600)
    results = Journal(folder / f"{part}.jsonl").results()
    assert results, done.stdout + done.stderr
    return results


def test_ten_kills_in_training(tmp_path: Path) -> None:
    results = campaign(tmp_path, "kills", 10)
    assert [(result.trial, result.failure) for result in results if result.failure] == []
    assert sum(result.count for result in results) >= 10


def test_ten_kills_while_files_are_written(tmp_path: Path) -> None:
    results = campaign(tmp_path, "writes", 10)
    assert [(result.trial, result.failure) for result in results if result.failure] == []
    assert sum(result.count for result in results) >= 10


def test_three_signals(tmp_path: Path) -> None:
    results = campaign(tmp_path, "signals", 3)
    assert [(result.trial, result.failure) for result in results if result.failure] == []


def test_planted_faults_are_noticed(tmp_path: Path) -> None:
    results = campaign(tmp_path, "controls", 2)
    assert [(result.trial, result.failure) for result in results] == [
        ("a loader without state", None),
        ("a reference taken from live weights", None),
    ]
