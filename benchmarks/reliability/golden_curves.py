"""The stored curves of 20 steps of R-SFT and HS-DPO, with the kernels of this CPU and of older ones."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from reliability.fits import ROOT
from reliability.part import Outcome, Part, Trial, cases

KERNELS = {
    "native kernels": {},
    "AVX2 kernels": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "kernels without AVX": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
"""Environment variables that select the kernels of torch and of its libraries."""


def _listed() -> Iterable[Trial]:
    return [Trial(name, partial(_repeat, variables=variables)) for name, variables in KERNELS.items()]


def _repeat(folder: Path, variables: dict[str, str]) -> Outcome:
    from tests.support import golden

    argv = [sys.executable, "-m", "tests.support.golden", str(folder)]
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        return Outcome(failure=f"exit code {done.returncode}: {done.stderr.strip()[-200:]}")
    curves = {stage: json.loads((folder / f"{stage}.json").read_text()) for stage in golden.STAGES}
    lines = [f"{name}: {line}" for name in curves for line in golden.differences(curves[name], golden.stored(name))]
    parts = [
        f"{stage} {name.removeprefix('train/')} {value:.1e}"
        for stage in golden.STAGES
        for name, value in golden.largest_relative_difference(curves[stage], golden.stored(stage)).items()
    ]
    return Outcome(len(curves), "; ".join(lines) or None, f"largest relative differences: {', '.join(parts)}")


PART = Part(
    "golden",
    "golden curves: 20 steps of R-SFT and of HS-DPO in fp32 on one thread, three kinds of kernels",
    6,
    "curves",
    cases(_listed),
)
