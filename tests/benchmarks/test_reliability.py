"""The reliability campaign: its journal, its page, and the comparison of interrupted with uninterrupted fits."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from reliability.campaign import run
from reliability.fits import differences, summary
from reliability.fuzzing import SEEDS, changed
from reliability.journal import Journal
from reliability.page import page
from reliability.part import Outcome, Part, Trial, cases

ROOT = Path(__file__).parents[2]

KILLED_CAMPAIGN = """
import os, signal, sys
from functools import partial
from pathlib import Path
from reliability.campaign import run
from reliability.journal import Journal
from reliability.part import Outcome, Part, Trial, cases

def attempt(folder, number):
    with open("runs.log", "a") as log:
        log.write(f"{number}\\n")
    if number == 2 and not Path("killed").exists():
        Path("killed").touch()
        with open("toy.jsonl", "a") as journal:
            journal.write('{"trial": "unfin')
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(failure="wrong" if number == 1 else None)

journal = Journal(Path("toy.jsonl"))
journal.drop_unfinished_line()
trials = cases(lambda: (Trial(str(number), partial(attempt, number=number)) for number in range(100)))
sys.exit(not run(Part("toy", "toys", 5, "toys", trials), journal, None, None))
"""


def test_a_killed_campaign_repeats_no_finished_trial(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])}
    argv = [sys.executable, "-c", KILLED_CAMPAIGN]
    codes = [subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True).returncode for _ in range(3)]
    assert codes == [-signal.SIGKILL, 1, 1]  # 1, because a trial failed
    assert (tmp_path / "runs.log").read_text().split() == ["0", "1", "2", "2", "3", "4"]
    results = Journal(tmp_path / "toy.jsonl").results()
    assert [(result.trial, result.failure) for result in results] == [
        *(("0", None), ("1", "wrong"), ("2", None), ("3", None), ("4", None)),
    ]


def toy(*outcomes: Outcome | Exception, target: int = 0) -> Part:
    """Return a part whose trials have these outcomes."""

    def attempt(outcome: Outcome | Exception) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    trials = [Trial(f"t{n}", lambda _, outcome=outcome: attempt(outcome)) for n, outcome in enumerate(outcomes)]  # type: ignore[misc]
    return Part("toy", "toys of all kinds", target, "toys", cases(lambda: trials))


def test_failed_trials_are_run_again_on_request(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "toy.jsonl")
    assert not run(toy(Outcome(), ValueError("broken"), target=2), journal, None, tmp_path / "kept")
    assert [result.failure for result in journal.results()] == [None, "ValueError: broken"]
    assert (tmp_path / "kept" / "toy" / "t1").is_dir()
    journal.drop_failures()
    assert run(toy(Outcome(), Outcome(3), target=2), journal, None, None)
    assert [(result.trial, result.count) for result in journal.results()] == [("t0", 1), ("t1", 3)]


def test_a_part_without_enough_trials_or_that_cannot_start_is_not_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not run(toy(Outcome(), target=2), Journal(tmp_path / "few.jsonl"), None, None)
    assert not run(toy(), Journal(tmp_path / "none.jsonl"), None, None)

    def missing() -> list[Trial]:
        raise ImportError("no cases")

    assert not run(Part("toy", "toys", 1, "toys", cases(missing)), Journal(tmp_path / "no.jsonl"), None, None)
    assert "toy: cannot be run: ImportError: no cases" in capsys.readouterr().out


def test_the_page_shows_each_part_its_failures_and_its_figures(tmp_path: Path) -> None:
    parts = [
        toy(Outcome(3, note="0.1 s"), Outcome(failure="a | b\n*c*"), target=200),
        Part("other", "x", 0, "y", cases(list)),
    ]
    journals = {"toy": Journal(tmp_path / "toy.jsonl"), "other": Journal(tmp_path / "other.jsonl")}
    run(parts[0], journals["toy"], None, None)
    text = page(parts, journals)
    (result, _) = journals["toy"].results()
    assert f"| toys of all kinds | 200 toys | 4 | **1** | {result.date} | {result.commit} |" in text
    assert "| x | all y | not run | | | |" in text
    assert "- **failed**: `t1`: a \\| b \\*c\\*\n- `t0`: 0.1 s\n" in text
    assert text.endswith(f"- {result.machine}\n")


def test_every_kind_of_difference_of_two_fits_is_named() -> None:
    whole = {"m: a": "1", "m: b": "2", "loss": [(0, 1.0), (1, 2.0), (2, 3.0)], "train/memory_gb": [(0, 1.0)]}
    assert differences(whole, whole) == []
    assert differences(whole | {"train/memory_gb": [(0, 2.0)]}, whole) == []
    found = {"m: a": "1", "m: c": "2", "loss": [(0, 1.0), (0, 1.0), (2, 3.5)], "train/memory_gb": [(0, 1.0)]}
    assert differences(found, whole) == [
        *("loss: 1 steps missing, first 1", "loss: 1 steps too many, first 0"),
        *("m: b: missing", "m: c: only in the interrupted run"),
    ]
    changed = differences(whole | {"m: a": "2", "loss": [(0, 1.0), (1, 2.5), (2, 3.0)]}, whole)
    assert changed == ["loss: 1 values differ, first 2.5 at step 1, expected 2.0", "m: a: differs"]
    assert summary(changed) == f"2 differences: {changed[0]}; {changed[1]}"
    assert summary([]) is None


def test_fuzzed_inputs_repeat_by_seed_and_include_valid_ones() -> None:
    inputs = [changed(random.Random(seed)) for seed in range(300)]
    assert inputs == [changed(random.Random(seed)) for seed in range(300)]
    assert set(SEEDS) <= set(inputs)
    assert len(set(inputs)) > 200


def test_unknown_parts_are_refused(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])}
    argv = [sys.executable, "-m", "reliability", "kils", "--page", str(tmp_path / "page.md")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown part 'kils'; the parts are kills, controls, writes" in done.stderr
    assert not (tmp_path / "page.md").exists()
