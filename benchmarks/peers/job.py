"""One measurement in a process of its own: what it is told, and what it gives back."""

import ctypes.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

MODULES = {"ours": "peers.our_side", "trl": "peers.trl_side", "peak": "peers.machine"}


class Failed(Exception):
    """A measurement that came to no end; its message is the last line that the process wrote."""


@dataclass(frozen=True)
class Job:
    """One run of some optimizer steps, the first of which warms up and is not counted.

    Args:
        side: "ours", "trl", or "peak" for the peak of matrix products.
        stage: "hsdpo" or "rsft".
        model: model folder; an adapter's where one is trained.
        base: folder of the base model.
        examples: JSON file of ids (:mod:`peers.real_pairs`).
        steps: for each optimizer step the numbers of its examples, in the order in which they are served.
        micro_batch: examples that are computed at once.
        dtype: "fp32" or "bf16".
        device: "cpu" or "cuda".
        threads: of torch.
        lr: peak of the cosine, of AdamW without weight decay.
        beta: β.
        sft_coef: c.
        limit: longest example, in tokens.
        check: also give a hash of the ids that were trained on.
        options: of one side alone.
    """

    side: str
    stage: str = ""
    model: str = ""
    base: str = ""
    examples: str = ""
    steps: list[list[int]] = field(default_factory=list)
    micro_batch: int = 1
    dtype: str = "fp32"
    device: str = "cpu"
    threads: int = 2
    lr: float = 5e-5
    beta: float = 0.01
    sft_coef: float = 2.0
    limit: int = 1024
    check: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> "Job":
        """Return the job with some fields changed."""
        return replace(self, **changes)


def run(job: Job, allocator: dict[str, str]) -> dict[str, Any]:
    """Run a job in a process of its own and return what it measured.

    Args:
        job: what to run.
        allocator: environment variables, the same for every process that is compared.

    Raises:
        Failed: the process ended with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        told, found = Path(folder, "job.json"), Path(folder, "found.json")
        told.write_text(json.dumps(asdict(job)))
        threads = str(job.threads)
        environment = {
            **os.environ,
            **allocator,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(Path(folder, "datasets")),  # no reference values of an earlier run
        }
        here = Path(__file__).parents[1]
        words = [sys.executable, "-m", MODULES[job.side], str(told), str(found)]
        done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True)
        if done.returncode or not found.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise Failed(lines[-1])
        return json.loads(found.read_text())


def allocator_settings(choice: str) -> dict[str, str]:
    """Return the environment of the allocator, for both sides alike.

    Args:
        choice: "auto" is tcmalloc or jemalloc where one is installed, else "glibc"; "glibc" keeps freed memory instead
            of giving it back to the system at each step; "system" changes nothing.
    """
    if choice == "system" or not sys.platform.startswith("linux"):
        return {}
    for name in ("tcmalloc", "tcmalloc_minimal", "jemalloc") if choice == "auto" else ():
        if library := ctypes.util.find_library(name):
            return {"LD_PRELOAD": library}
    return {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26)}


def read_job(words: list[str]) -> tuple[Job, Path]:
    """Return, in the child, the job and where its result goes."""
    return Job(**json.loads(Path(words[1]).read_text())), Path(words[2])
