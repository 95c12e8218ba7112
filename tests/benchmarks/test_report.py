"""The page of benchmark results: one row and section per result; other files are refused."""

import json
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import report
import rsft_vs_trl
import start_up
from hsdpo_vs_trl import targets
from sections import not_measured

ENVIRONMENT: dict[str, Any] = {
    "machine": {
        "processor": "P",
        "cores": 4,
        "threads": 2,
        "memory_gb": 8.0,
        "system": "Linux x86_64",
        "python": "3.11",
    },
    "allocator": "system",
    "versions": {"torch": "2"},
}
SETTINGS = {
    **{"hidden": 512, "layers": 3, "vocabulary": 12_000, "limit": 1024, "batch": 8, "repeats": 3, "quick": False},
    **{"lora": 0, "dtype": "fp32", "device": "cpu", "examples": 32, "k": 4, "prompts": 64, "real_pairs": 32},
}


def ratio(what: str, median: float, target: float | None, met: bool | None) -> dict[str, Any]:
    return {
        **{"what": what, "against": "best", "median": median, "min": median - 0.1, "max": median + 0.1},
        **{"target": target, "met": met},
    }


def hsdpo() -> dict[str, Any]:
    measurements = {"pairs_per_second": 3.25, "tokens_per_second": 1500.0, "memory_mb": 800.0, "peak_mb": 1100.0}
    measurements |= {"share": 0.5, "reference_seconds": 4.0, "slowest": 3.0, "fastest": 3.5}
    return {
        **{"comparison": "hsdpo", "settings": SETTINGS, **ENVIRONMENT, "matrix_peak_gflops": 100.0},
        "examples": {"prompt_tokens": 140, "completion_tokens": 300},
        "rows": [
            {"role": "ours", "name": "ours: packed, micro-batch 2", **measurements, "share": 0.861},
            {"role": "best", "name": "TRL: micro-batch 1 (best)", **measurements, "share": 0.333},
        ],
        "ratios": [ratio("speed", 2.6, 2.5, True), ratio("memory", 0.8, 0.75, False)],
        "losses": [{"what": "micro-batch 1", "ours": [1.0], "trl": [1.000001], "difference": 1e-6}],
        "search": [{"name": "TRL: micro-batch 8", "failed": "no memory"}],
        "own_search": [{"name": "ours: packed, micro-batch 2", **measurements}],
    }


def mining() -> dict[str, Any]:
    measurements = {"tokens_per_second": 4000.0, "records_per_second": 4.0, "memory_mb": 130.0, "peak_mb": 400.0}
    return {
        **{"comparison": "mining", "settings": SETTINGS, **ENVIRONMENT, "equal_texts": 8},
        "prompts": {"prompt_tokens": 140, "output_tokens": 240, "longest_output": 500},
        "rows": [{"name": "ours: 64 outputs at once", **measurements, "slowest": 3900.0, "fastest": 4100.0}],
        "ratios": [ratio("speed", 2.5, 2.0, True), ratio("memory", 0.6, None, None)],
        "search": [{"name": "transformers: 32 outputs at once", **measurements}],
        "own_search": [],
    }


def growth() -> dict[str, Any]:
    seconds = {"data": 1.0, "reference": 2.0, "training": 3.0}
    sizes = [
        {
            "pairs": n,
            "seconds": seconds,
            "microseconds": {k: 1e6 * s / n for k, s in seconds.items()},
            "peak_mb": seconds,
        }
        for n in (1_000, 100_000)
    ]
    change = {"sizes": sizes, "time_a_pair": 1.02, "memory_mb": 34.0, "target": 50, "met": True}
    return {"comparison": "growth", "settings": SETTINGS, **ENVIRONMENT, **change}


def overhead() -> dict[str, Any]:
    share = {"median": 0.031, "min": 0.02, "max": 0.04, "target": 0.05, "met": True}
    runs = {"fit": [10.0, 11.0], "bare": [9.7, 10.6], "steps": 11, **share}
    return {"comparison": "overhead", "settings": SETTINGS, **ENVIRONMENT, **runs}


def test_page_has_a_row_and_a_section_for_every_result() -> None:
    page = report.page([overhead(), mining(), growth(), hsdpo()])
    title = "HS-DPO, full weights, vocabulary 12,000, fp32, CPU"
    assert f"| {title} | speed, ours / TRL's best | 2.60 × | 2.50–2.70 | ≥ 2.5 | met | 86.1 % / 33.3 % |" in page
    assert f"| {title} | memory, ours / TRL's best | 0.80 × | 0.70–0.90 | ≤ 0.75 | **missed** |  |" in page
    assert "Settings tried for TRL, in pairs/s: micro-batch 8 failed." in page
    name = "Mining, vocabulary 12,000, fp32, CPU"
    assert f"| {name} | speed, ours / transformers' best | 2.50 × | 2.40–2.60 | ≥ 2.0 | met |" in page
    assert "| ours: 64 outputs at once | 4,000 | 3,900–4,100 | 4.00 | 130 MB | 400 MB |" in page
    assert "Settings tried for transformers, in tokens/s: 32 outputs at once 4,000." in page
    assert "| 100,000 | 10 µs | 20 µs | 30 µs | 6.0 s | 1 MB | 2 MB | 3 MB |" in page
    growing = "HS-DPO from 1,000 to 100,000 pairs"
    assert f"| {growing} | peak memory, most pairs − fewest | 34 MB | – | < 50 MB | met |" in page
    assert "| Overhead of an HS-DPO fit | share of the step time | 3.1 % | 2.0–4.0 % | < 5 % | met |" in page
    sections = [line for line in page.splitlines() if line.startswith("## ")]
    assert [part.split(" ")[1].rstrip(",") for part in sections] == ["HS-DPO", "Mining", "HS-DPO", "Overhead", "What"]
    assert {row.count("|") for row in page.split("\n\n## ")[0].splitlines() if row.startswith("| ")} == {8}


def test_page_has_the_rows_of_a_gpu() -> None:
    done = {"status": "done"}
    training = {"tokens_per_second": 12_345.6, "share": 0.4, "step_seconds": 0.5, "first_step_seconds": 2.0}
    training |= {"device_mb": 9_000.0, "peak_mb": 8_000.0, "predicted_mb": 9_500.0}
    rows = [
        {"name": "matrix products", "kind": "peak", **done, "flops": 7e14},
        {"name": "gradients", "kind": "gradients", **done, "within": False, "errors": {"packed bf16": 0.2}},
        {"name": "R-SFT", "kind": "training", **done, **training},
        {"name": "decode", "kind": "decoding", **done, "tokens_per_second": 9_000.0},
        {
            "name": "3B",
            "kind": "training",
            "status": "failed",
            "reason": "CUDA out of memory",
            "predicted_mb": 31_000.0,
        },
    ]
    machine = {**ENVIRONMENT["machine"], "gpu": "G", "cuda": "13"}
    page = report.page(
        [{"comparison": "gpu", **ENVIRONMENT, "machine": machine, "settings": {"tiny": False}, "rows": rows}]
    )
    assert "## One GPU\n\nG:\n" in page
    assert "| matrix products |  |  |  |  |  | 700.0 TFLOP/s |" in page
    assert "| R-SFT | 12,346 | 40.0 % | 0.50, 2.00 s | 9.00 GB | 9.50 GB |  |" in page
    assert "| gradients |  |  |  |  |  | **not within** the tolerances: packed bf16 2.0e-01 |" in page
    assert "| decode | 9,000 |  |  |  |  |  |" in page
    assert "| 3B |  |  |  |  | 31.00 GB | failed: CUDA out of memory |" in page


def test_a_judged_share_of_the_limit_has_a_row() -> None:
    share = {"what": "share", "against": "limit", "median": 0.861, "min": 0.85, "max": 0.87}
    judged = hsdpo()
    judged["ratios"].append(share | {"target": 0.85, "met": True})
    row = "| share of the limit, ours | 86.1 % | 85.0 %–87.0 % | ≥ 85 % | met |"
    assert row in report.page([judged])
    judged["ratios"][-1] |= {"target": None, "met": None}
    assert "share of the limit, ours |" not in report.page([judged])


def test_a_result_from_before_the_definition_of_the_share_has_none() -> None:
    old = hsdpo()
    for row in old["rows"]:
        row["mfu"] = row.pop("share")
    page = report.page([old])
    assert "| 2.60 × | 2.50–2.70 | ≥ 2.5 | met | – / – |" in page
    assert "| 800 MB | 1,100 MB | – | 4.0 s |" in page


def test_pairs_with_policies_have_a_title_of_their_own() -> None:
    result = hsdpo()
    result["settings"] = {**SETTINGS, "instruction_tokens": 1500}
    page = report.page([result])
    assert "\n## HS-DPO, 1,500 tokens of policy, full weights, vocabulary 12,000, fp32, CPU\n" in page
    assert " Every prompt starts with the same 1,500 tokens of the embedded policies." in page


def test_packed_rows_have_the_growth_per_segment() -> None:
    rows = [
        {
            "segments": count,
            "split": {"megabytes": count / 10, "milliseconds": count / 5 + 4},
            "sliced": {"megabytes": count**2 / 10, "milliseconds": 1.0},
        }
        for count in (20, 80)
    ]
    result = {"comparison": "packed-segments", "settings": {"length": 16}, "rows": rows, **ENVIRONMENT}
    page = report.page([result])
    title = "Backward pass of packed rows"
    assert f"| {title} | bytes written per segment, 80 / 20 segments | 1.00 × |" in page
    assert f"| {title} | processor time per segment, 80 / 20 segments | 0.62 × |" in page
    assert "| 80 | 8.0 MB | 20.0 ms | 640.0 MB | 1.0 ms |" in page


def test_what_is_not_measured_is_listed_with_its_command(tmp_path: Path) -> None:
    for expected in not_measured.EXPECTED:
        if expected.file != "start-up.json":
            (tmp_path / expected.file).touch()
    (absent,) = not_measured.missing(tmp_path)
    page = report.page([mining()], [absent])
    command = "`python benchmarks/start_up.py --json benchmarks/results/start-up.json`"
    assert f"| Start-up | imports of `fit` / `import torch` ≤ 1.7 | {command} |" in page
    assert page.index("## Not measured yet") < page.index("## Mining")
    assert "Not measured yet" not in report.page([mining()])


@pytest.mark.parametrize("expected", not_measured.EXPECTED, ids=lambda expected: expected.file)
def test_the_command_of_an_expected_result_is_in_the_documentation_of_its_program(
    expected: not_measured.Expected,
) -> None:
    program = next(word for word in expected.program.split() if word.startswith("benchmarks/"))
    documented = re.sub(r"\\\n\s+", "", (Path(report.__file__).parents[1] / program).read_text(encoding="utf-8"))
    if program.endswith(".sh"):
        assert f"benchmarks/results/{expected.file}" in documented
    else:
        assert f"    {expected.command}\n" in documented


def test_the_targets_of_expected_results_are_those_of_the_benchmarks() -> None:
    stated = {expected.file: expected.target for expected in not_measured.EXPECTED}
    flags = {"quick": False, "device": "cpu", "dtype": "fp32", "vocabulary": 12_000, "lora": 0}
    (policies,) = targets(Namespace(**flags, base=None, instruction_tokens=1500))
    (smollm2,) = rsft_vs_trl.targets(Namespace(**flags, base=Path("base"), instruction_tokens=0))
    assert stated["hsdpo-policies.json"].endswith(f"≥ {policies.bound}")
    assert stated["rsft-smollm2.json"].endswith(f"≥ {smollm2.bound}")
    assert stated["start-up.json"].endswith(f"≤ {start_up.TARGET}")


def test_page_omits_missing_results() -> None:
    page = report.page([mining()])
    assert "## Mining" in page
    assert "## HS-DPO" not in page
    assert "## Overhead" not in page


def test_page_is_written_from_a_folder_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, result in enumerate((growth(), hsdpo())):
        (tmp_path / f"{number}.json").write_text(json.dumps(result))
    argv = ["report.py", "--results", str(tmp_path), "--out", str(tmp_path / "page.md")]
    monkeypatch.setattr(sys, "argv", argv)
    report.main()
    page = (tmp_path / "page.md").read_text()
    assert page == report.page([growth(), hsdpo()], not_measured.EXPECTED)  # other names than the expected ones


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"comparison": "other"}'])
def test_other_files_are_refused(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.json").write_text(content)
    monkeypatch.setattr(sys, "argv", ["report.py", "--results", str(tmp_path), "--out", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit, match=r"other\.json: not a result of these benchmarks"):
        report.main()
    assert not (tmp_path / "page.md").exists()


def test_an_empty_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="no result in"):
        report.main()
