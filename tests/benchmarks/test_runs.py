"""Each benchmark runs at a tiny size, at which its results mean nothing."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import report

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUICK = ("--quick", "--threads", "1")


def run(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCHMARKS / name), *flags], capture_output=True, text=True)


def run_quick(path: Path, name: str, *flags: str) -> dict[str, Any]:
    """Run a benchmark with ``--quick`` and return its result."""
    process = run(name, *QUICK, "--json", str(path), *flags)
    assert process.returncode == 0, process.stderr
    result = json.loads(path.read_text())
    assert report.page([result])
    return result


def test_growth_quick(tmp_path: Path) -> None:
    result = run_quick(tmp_path / "growth.json", "growth.py", "--pairs", "128")
    (size,) = result["sizes"]
    assert (size["pairs"], size["steps"]) == (128, 128 // 16)  # the batch size of configs/hsdpo.yaml
    assert min(size["seconds"].values()) > 0
    assert min(size["peak_mb"].values()) >= 0.9 * size["before_mb"]


def test_packed_segments_writes_less_than_slices(tmp_path: Path) -> None:
    process = run("packed_segments.py", "--segments", "8", "4", "--repeats", "1", "--json", str(tmp_path / "rows.json"))
    assert process.returncode == 0, process.stderr
    result = json.loads((tmp_path / "rows.json").read_text())
    few, many = result["rows"]
    assert report.page([result])
    assert many["split"]["megabytes"] < 2.1 * few["split"]["megabytes"]
    assert many["sliced"]["megabytes"] > 3 * few["sliced"]["megabytes"]


def test_overhead_quick(shared_data: Path, tmp_path: Path) -> None:
    flags = ("--overhead", "--predictions", str(shared_data / "predictions"), "--repeats", "2")
    result = run_quick(tmp_path / "overhead.json", "growth.py", *flags)
    assert (result["steps"], len(result["fit"]), len(result["bare"])) == (3, 2, 2)
    assert result["min"] <= result["median"] <= result["max"] < 1


def test_mining_quick(shared_data: Path, tmp_path: Path) -> None:
    flags = ("--predictions", str(shared_data / "predictions"), "--prompts", "2")
    result = run_quick(tmp_path / "mining.json", "mining_vs_transformers.py", *flags)
    assert result["equal_texts"] == 2
    assert [row["runs"] for row in result["rows"]] == [1, 1]
    assert result["ratios"][0]["median"] > 0


def test_scoring_quick(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "scoring.json"
    flags = ("--predictions", str(shared_data / "predictions"), "--records", "2", "--json", str(path))
    process = run("scoring.py", *QUICK, *flags)
    assert process.returncode == 0, process.stderr
    result = json.loads(path.read_text())
    assert max(result["differences"].values()) < 1e-4
    assert [row["runs"] for row in result["rows"]] == [1, 1, 1]


@pytest.mark.parametrize("argv", [("mining_vs_transformers.py",), ("scoring.py",), ("growth.py", "--overhead")])
def test_missing_predictions_are_one_error_line(argv: tuple[str, ...], tmp_path: Path) -> None:
    process = run(argv[0], *argv[1:], *QUICK, "--predictions", str(tmp_path))
    assert process.returncode == 1
    assert process.stderr == f"error: --predictions: {tmp_path / '1B'}: no such folder of published predictions\n"


def test_missing_trl_is_one_error_line() -> None:
    if find_spec("trl"):
        pytest.skip("TRL is installed")
    process = run("hsdpo_vs_trl.py", *QUICK)
    assert process.returncode == 1
    assert process.stderr.splitlines()[0] == "error: TRL is not installed"


def check_share_of_limit(result: dict[str, Any]) -> None:
    """Check that the share of each side is its speed times the work of an example, over the rate of the machine."""
    for row in result["rows"]:
        assert row["share"] == pytest.approx(
            row["pairs_per_second"] * result["useful_gflops"] / result["matrix_peak_gflops"]
        )
    (share,) = (ratio for ratio in result["ratios"] if ratio["what"] == "share")
    assert share["median"] == result["rows"][0]["share"] < 1


@pytest.mark.parametrize("instruction", [0, 64])
def test_hsdpo_quick(shared_data: Path, tmp_path: Path, instruction: int) -> None:
    if not find_spec("trl"):
        pytest.skip("TRL is not installed (pip install -e '.[bench]')")
    flags = ("--predictions", str(shared_data / "predictions"), "--batches", "1", "--batch", "2", "--pairs", "4")
    flags = (*flags, "--instruction-tokens", str(instruction))
    result = run_quick(tmp_path / "hsdpo.json", "hsdpo_vs_trl.py", *flags)
    assert result["losses"][0]["difference"] < 1e-4
    assert result["settings"]["limit"] == 1024 + instruction
    assert result["examples"]["prompt_tokens"] > 100 + instruction
    check_share_of_limit(result)
