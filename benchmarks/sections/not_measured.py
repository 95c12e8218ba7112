"""The results that the page is made for, and a table of those that are not there yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Expected:
    """A result of the page.

    Args:
        file: Its file in the folder of results.
        what: What is measured.
        program: The command without ``--json``.
        target: Target, as in the overview table.
    """

    file: str
    what: str
    program: str
    target: str = "–"

    @property
    def command(self) -> str:
        """Command that measures it and writes its file."""
        return f"{self.program} --json benchmarks/results/{self.file}"


_HSDPO, _RSFT = "python benchmarks/hsdpo_vs_trl.py", "python benchmarks/rsft_vs_trl.py"
_MINING, _GROWTH = "python benchmarks/mining_vs_transformers.py", "python benchmarks/growth.py"
_SMOLLM2 = "--base checkpoints/smollm2-135m/base"

EXPECTED = (
    Expected("hsdpo.json", "HS-DPO, full weights", _HSDPO),
    Expected("hsdpo-lora.json", "HS-DPO, LoRA", f"{_HSDPO} --lora"),
    Expected("hsdpo-vocabulary.json", "HS-DPO, large vocabulary", f"{_HSDPO} --vocabulary 128256 --best-alone"),
    Expected(
        "hsdpo-policies.json",
        "HS-DPO, 1,500 tokens of policy in front of every prompt",
        f"{_HSDPO} --instruction-tokens 1500 --pairs 16 --batches 1 2 --search-steps 1 --best-alone",
        "speed, ours / TRL's best ≥ 4.0",
    ),
    Expected("rsft.json", "R-SFT, full weights", _RSFT),
    Expected(
        "rsft-smollm2.json",
        "R-SFT, SmolLM2-135M",
        f"{_RSFT} {_SMOLLM2} --limit 768",
        "speed, ours / TRL's best ≥ 1.5",
    ),
    Expected("mining.json", "Mining", _MINING),
    Expected(
        "mining-smollm2.json", "Mining, SmolLM2-135M", f"{_MINING} {_SMOLLM2}", "speed, ours / transformers' best ≥ 4.0"
    ),
    Expected("growth.json", "HS-DPO from 1,000 to 100,000 pairs", _GROWTH),
    Expected("overhead.json", "Overhead of an HS-DPO fit", f"{_GROWTH} --overhead"),
    Expected("start-up.json", "Start-up", "python benchmarks/start_up.py", "imports of `fit` / `import torch` ≤ 1.7"),
    Expected("packed-segments.json", "Backward pass of packed rows", "python benchmarks/packed_segments.py"),
    Expected(
        "demo.json",
        "`make demo` by stage, and a second fit",
        "python benchmarks/demo_time.py --against c06a25d",
        "time now / then ≤ 0.35 and 0.5",
    ),
    Expected("gpu.json", "Training and decoding on one GPU; none was at hand", "benchmarks/gpu.sh"),
)
"""All results of the page."""


def missing(results: Path) -> list[Expected]:
    """Return the expected results that a folder lacks."""
    return [expected for expected in EXPECTED if not (results / expected.file).is_file()]


def section(absent: Sequence[Expected]) -> str:
    """Return the section on results that are not there."""
    lines = [
        "## Not measured yet",
        "",
        "On a quiet machine, each command measures one of these; `python benchmarks/report.py` then shows it here.",
        "SmolLM2 comes from `python -m guardreasoner base-model --config configs/base.yaml "
        "--config configs/model/smollm2-135m.yaml`.",
        "",
        "| | target | command |",
        "|---|---|---|",
        *(f"| {one.what} | {one.target} | `{one.command}` |" for one in absent),
    ]
    return "\n".join([*lines, ""])
