"""Each benchmark runs through at a tiny size; its figures then mean nothing."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import report

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ONE = ("--quick", "--threads", "1")


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCHMARKS / name), *words], capture_output=True, text=True)


def result(place: Path, name: str, *words: str) -> dict[str, Any]:
    done = run(name, *ONE, "--json", str(place), *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(place.read_text())
    assert report.page([found])
    return found


def test_growth_quick(tmp_path: Path) -> None:
    found = result(tmp_path / "growth.json", "growth.py", "--pairs", "128")
    (size,) = found["sizes"]
    assert (size["pairs"], size["steps"]) == (128, 2)
    assert min(size["seconds"].values()) > 0
    assert min(size["peak_mb"].values()) >= 0.9 * size["before_mb"]


def test_overhead_quick(shared_data: Path, tmp_path: Path) -> None:
    words = ("--overhead", "--predictions", str(shared_data / "predictions"), "--repeats", "2")
    found = result(tmp_path / "overhead.json", "growth.py", *words)
    assert (found["steps"], len(found["fit"]), len(found["bare"])) == (3, 2, 2)
    assert found["min"] <= found["median"] <= found["max"] < 1


def test_mining_quick(shared_data: Path, tmp_path: Path) -> None:
    words = ("--predictions", str(shared_data / "predictions"), "--prompts", "2")
    found = result(tmp_path / "mining.json", "mining_vs_transformers.py", *words)
    assert found["equal_texts"] == 2
    assert [row["runs"] for row in found["rows"]] == [1, 1]
    assert found["ratios"][0]["median"] > 0


@pytest.mark.parametrize("words", [("mining_vs_transformers.py",), ("growth.py", "--overhead")])
def test_without_predictions_one_line_says_so(words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(words[0], *words[1:], *ONE, "--predictions", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"error: --predictions: {tmp_path / '1B'}: no such folder of published predictions\n"


def test_trl_is_asked_for_where_it_is_not_installed() -> None:
    if find_spec("trl"):
        pytest.skip("TRL is installed")
    done = run("hsdpo_vs_trl.py", *ONE)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: TRL is not installed"


def test_hsdpo_quick(shared_data: Path, tmp_path: Path) -> None:
    if not find_spec("trl"):
        pytest.skip("TRL is not installed (pip install -e '.[bench]')")
    words = ("--predictions", str(shared_data / "predictions"), "--batches", "1", "--batch", "2", "--pairs", "4")
    found = result(tmp_path / "hsdpo.json", "hsdpo_vs_trl.py", *words)
    assert found["losses"][0]["difference"] < 1e-4
