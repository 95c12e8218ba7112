"""Description of the machine, its peak rate of matrix products, and memory of a process."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "guardreasoner",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "peft",
    "lightning",
    "datasets",
    "tokenizers",
)
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def describe(device: str, threads: int) -> dict[str, Any]:
    """Return hardware and operating system."""
    description: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if device == "cuda":
        import torch

        description["gpu"] = torch.cuda.get_device_name()
        description["cuda"] = torch.version.cuda
    return description


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that affect the results."""
    numbers = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            numbers[name] = version(name)
    with suppress(OSError, subprocess.CalledProcessError):
        git = ["git", "log", "-1", "--format=%h of %cs"]
        commit = subprocess.check_output(git, cwd=Path(__file__).parent, text=True, stderr=subprocess.DEVNULL)
        numbers["commit"] = commit.strip()
    return numbers


def setup_torch(device: str, threads: int) -> None:
    """Set the number of threads; exit if the CUDA device is missing."""
    import torch

    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device")


def resident_mb(device: str) -> float:
    """Return the resident memory of the process; with CUDA, the memory that torch has allocated on the GPU."""
    if device == "cuda":
        import torch

        return torch.cuda.memory_allocated() / 1e6
    return _status("VmRSS") if _STATUS.is_file() else peak_mb(device)


def peak_mb(device: str) -> float:
    """Return the peak memory of the process since its start or the last :func:`reset_peak`."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    if _STATUS.is_file():  # ru_maxrss would include the memory of the parent process
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def reset_peak(device: str) -> None:
    """Reset the peak memory, if the system supports it."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif _RESET.is_file():
        _RESET.write_text("5")


def now(clock: str) -> float:
    """Return the seconds of a clock: "wall", or "cpu" for the processor time of this process."""
    return time.process_time() if clock == "cpu" else time.perf_counter()


def wait(device: str) -> None:
    """Wait until the device has finished all work."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def matrix_peak(dtype: str, device: str, clock: str = "wall", seconds: float = 3.0) -> float:
    """Return the best measured rate of square matrix products in FLOP/s, by PyTorch's own choice of library or ours.

    Processors without instructions for bfloat16 multiply it 50 times as slowly, so no product is followed by a larger
    one if it takes longer than its share of the time.

    Args:
        dtype: "bf16" or "fp32".
        device: "cuda" or "cpu".
        clock: see :func:`now`.
        seconds: time for each size.
    """
    import torch

    from guardreasoner.model.linear_layer import product

    torch_dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
    best = taken = 0.0
    for size in (4096, 8192) if device == "cuda" else (1024, 2048):
        if taken > seconds / 2:
            break
        left, right = (torch.randn(size, size, dtype=torch_dtype, device=device) for _ in range(2))
        for multiply in (torch.matmul, product):
            multiply(left, right)
            wait(device)
            end_time = now(clock) + seconds / 2
            while (start_time := now(clock)) < end_time:
                multiply(left, right)
                wait(device)
                taken = now(clock) - start_time
                best = max(best, 2 * size**3 / taken)
    return best


def _processor() -> str:
    if (cpuinfo := Path("/proc/cpuinfo")).is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if lines:
            return lines[0].split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _status(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    from peers.job import Job
    from peers.process import read_job

    job, result_path = read_job(Job)
    setup_torch(job.device, job.threads)
    result_path.write_text(json.dumps({"flops": matrix_peak(job.dtype, job.device, job.clock)}))
