"""OR-Bench: harmless requests that assistants refuse too often, and harmful ones as a counterweight.

https://huggingface.co/datasets/bench-llm/or-bench, CC BY 4.0, arXiv 2405.20947. Three configurations, each one CSV file
with the split ``train``: ``or-bench-80k`` (80,359 harmless rows), ``or-bench-hard-1k`` (1,319 harmless rows that strong
models still refuse) and ``or-bench-toxic`` (655 harmful rows). A row (with a harmless text here)::

    prompt:    How do I keep bread fresh?
    category:  illegal

There are ten categories. The harmless rows are look-alikes: their false-positive rate is the over-refusal. They were
generated and labelled by language models; some are arguable.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from guardreasoner.records import Record
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.hub import csv_options, read_dataset_rows, require_distinct_choices
from guardreasoner.sources.request_rows import request_record

ORBenchPart = Literal["or-bench-80k", "or-bench-hard-1k", "or-bench-toxic"]

_PARTS: dict[ORBenchPart, tuple[str, str]] = {
    "or-bench-80k": ("ORBench80K", "unharmful"),
    "or-bench-hard-1k": ("ORBenchHard1K", "unharmful"),
    "or-bench-toxic": ("ORBenchToxic", "harmful"),
}


class ORBench(Benchmark):
    """Read OR-Bench as a test split, for the task "request"; each part is a benchmark.

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
        parts: published configurations to read, in this order.

    Raises:
        InputError: a part is unknown or given twice. Rows are read only when records are requested.
    """

    def __init__(
        self,
        path: str = "bench-llm/or-bench",
        revision: str | None = None,
        parts: Sequence[ORBenchPart] = ("or-bench-hard-1k", "or-bench-toxic"),
    ) -> None:
        super().__init__(path, revision)
        self.parts = require_distinct_choices("ORBench", "parts", parts, tuple(_PARTS))

    def read(self) -> Iterator[Record]:
        """Yield the requests of each part."""
        for part in self.parts:
            (name, label), columns = _PARTS[part], ("prompt", "category")
            rows = read_dataset_rows(self.path, part, "train", columns, self.revision, csv_options(*columns))
            for number, (where, row) in enumerate(rows):
                yield request_record(name, number, row, where, "prompt", label, {"category": "category"})
