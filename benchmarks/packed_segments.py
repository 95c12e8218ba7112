"""Cost of the backward pass of packed attention by the number of segments in a row, against one slice per segment.

    python benchmarks/packed_segments.py --json benchmarks/results/packed-segments.json
    python benchmarks/packed_segments.py --segments 8 32 128 512

Prints, for each number of segments of equal length, the megabytes that the operations of the backward pass write, and
its CPU time on one thread. Linear growth doubles both with the number of segments, quadratic growth multiplies by four.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from peers.flags import positive_int
from peers.machine import describe, versions
from peers.result_file import run_and_write, settings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from guardreasoner.model.batch import Segment
from guardreasoner.model.packed_attention import PackedContext

HEADS, KEY_HEADS, HEAD_SIZE = 8, 4, 64

Attend = Callable[[list[Segment], Tensor, Tensor, Tensor], Tensor]


class BytesWritten(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations allocate; views and in-place operations allocate none."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        if not any(result.alias_info for result in function._schema.returns):
            self.total += sum(t.nbytes for t in torch.utils._pytree.tree_leaves(results) if isinstance(t, Tensor))
        return results


def split(segments: list[Segment], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend as training does: the row is split once."""
    return PackedContext(segments).attend(0, query, key, value, None, None)


def sliced(segments: list[Segment], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with a slice of the row for each segment."""
    parts = [tuple(states[:, :, s.start : s.end] for states in (query, key, value)) for s in segments]
    return torch.cat([F.scaled_dot_product_attention(*p, is_causal=True, enable_gqa=True) for p in parts], dim=2)


def backward_cost(attend: Attend, count: int, length: int, repeats: int) -> dict[str, float]:
    """Return megabytes written and milliseconds of one backward pass."""
    segments = [Segment(n * length, (n + 1) * length) for n in range(count)]
    query, key, value = (
        torch.randn(1, heads, count * length, HEAD_SIZE).requires_grad_() for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    seconds = []
    for _ in range(repeats):
        # a segment is never a leaf in training: its gradient is passed on, not stored
        total = attend(segments, query * 1, key * 1, value * 1).sum()
        start_time = time.process_time()
        total.backward()
        seconds.append(time.process_time() - start_time)
    total = attend(segments, query * 1, key * 1, value * 1).sum()
    with BytesWritten() as written:
        total.backward()
    return {"megabytes": written.total / 1e6, "milliseconds": 1e3 * median(seconds)}


def main() -> None:
    """Measure all numbers of segments in both ways, and write the result if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, nargs="+", default=[16, 32, 64, 128, 256], help="segments per row")
    parser.add_argument("--length", type=int, default=16, help="tokens per segment")
    parser.add_argument("--repeats", type=positive_int, default=5)
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    run_and_write(arguments, lambda folder: measure(arguments))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print the cost of each number of segments and return the result."""
    torch.set_num_threads(1)
    rows = []
    for count in sorted(arguments.segments):
        both = {f.__name__: backward_cost(f, count, arguments.length, arguments.repeats) for f in (sliced, split)}
        rows.append({"segments": count, **both})
        parts = (f"{name}: {row['megabytes']:9.1f} MB, {row['milliseconds']:8.1f} ms" for name, row in both.items())
        print(f"{count:5} segments  {'   '.join(parts)}", flush=True)
    return {
        "comparison": "packed-segments",
        "rows": rows,
        "settings": settings(arguments),
        "machine": describe("cpu", 1),
        "allocator": "system",
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
