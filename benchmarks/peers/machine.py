"""The machine: what it is, how fast its matrix products are, how much memory a process has taken."""

import json
import os
import platform
import resource
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "lightning", "datasets", "tokenizers")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def describe(device: str, threads: int) -> dict[str, Any]:
    """Return hardware and operating system."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if device == "cuda":
        import torch

        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
    return found


def versions() -> dict[str, str]:
    """Return the versions of what is compared, and of what it stands on, as far as it is installed."""
    from guardreasoner import __version__

    found = {"guardreasoner": __version__}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def setup_torch(device: str, threads: int) -> None:
    """Set the number of threads, before anything is computed."""
    import torch

    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device")


def resident_mb(device: str) -> float:
    """Return the memory that the process holds now; on a GPU, what torch has allocated there."""
    if device == "cuda":
        import torch

        return torch.cuda.memory_allocated() / 1e6
    return _status("VmRSS") if _STATUS.is_file() else peak_mb(device)


def peak_mb(device: str) -> float:
    """Return the most memory that the process has held since its start or since :func:`reset_peak`."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    if _STATUS.is_file():  # ru_maxrss would count the process that started this one
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def reset_peak(device: str) -> None:
    """Forget the peak so far, where the system can, so that it is that of the steps alone."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif _RESET.is_file():
        _RESET.write_text("5")


def wait(device: str) -> None:
    """Wait until the device has done all its work."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def matrix_peak(dtype: str, device: str, seconds: float = 3.0) -> float:
    """Return the best rate of matrix products, in FLOP/s, over some square sizes."""
    import torch

    wanted = torch.bfloat16 if dtype == "bf16" else torch.float32
    best = 0.0
    for size in (4096, 8192) if device == "cuda" else (1024, 2048):
        left, right = (torch.randn(size, size, dtype=wanted, device=device) for _ in range(2))
        left @ right
        wait(device)
        ends = time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends:
            left @ right
            wait(device)
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def _processor() -> str:
    if (found := Path("/proc/cpuinfo")).is_file():
        lines = [line for line in found.read_text().splitlines() if line.startswith("model name")]
        if lines:
            return lines[0].split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _status(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    from peers.job import Job
    from peers.process import told

    job, place = told(Job)
    setup_torch(job.device, job.threads)
    place.write_text(json.dumps({"flops": matrix_peak(job.dtype, job.device)}))
