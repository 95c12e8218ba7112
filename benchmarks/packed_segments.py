"""Cost of the backward pass of packed attention by the number of segments in a row, against one slice per segment.

Prints, for each number of segments of equal length, the megabytes that the operations of the backward pass write, and
its CPU time on one thread. Linear growth doubles both with the number of segments, quadratic growth multiplies by four.

    python benchmarks/packed_segments.py
    python benchmarks/packed_segments.py --segments 8 32 128 512 --json segments.json
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
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


def measure(attend: Attend, count: int, length: int, repeats: int) -> dict[str, float]:
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
    """Measure all numbers of segments in both ways."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--segments", type=int, nargs="+", default=[16, 32, 64, 128, 256], help="segments per row")
    parser.add_argument("--length", type=int, default=16, help="tokens per segment")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for count in arguments.segments:
        both = {f.__name__: measure(f, count, arguments.length, arguments.repeats) for f in (sliced, split)}
        rows.append({"segments": count, **both})
        parts = (f"{name}: {row['megabytes']:9.1f} MB, {row['milliseconds']:8.1f} ms" for name, row in both.items())
        print(f"{count:5} segments  {'   '.join(parts)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"length": arguments.length, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
