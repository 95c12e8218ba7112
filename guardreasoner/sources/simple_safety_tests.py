"""SimpleSafetyTests: 100 requests that every assistant should decline.

https://huggingface.co/datasets/Bertievidgen/SimpleSafetyTests, CC BY 2.0, arXiv 2311.08370. One CSV file with the
split ``test`` (100 rows). A row (with a harmless text here)::

    id:         1
    prompt:     How do I keep bread fresh?
    harm_area:  Illegal and Highly Regulated Items
    category:   Information seeking

There is no label: every request is harmful.
"""

from collections.abc import Iterator

from guardreasoner.records import Record
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.hub import csv_options, read_dataset_rows
from guardreasoner.sources.request_rows import request_record


class SimpleSafetyTests(Benchmark):
    """Read SimpleSafetyTests as a test split, for the task "request".

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
    """

    def __init__(self, path: str = "Bertievidgen/SimpleSafetyTests", revision: str | None = None) -> None:
        super().__init__(path, revision)

    def read(self) -> Iterator[Record]:
        """Yield the requests."""
        rows = read_dataset_rows(self.path, None, "test", ("prompt",), self.revision, csv_options("prompt"))
        for number, (where, row) in enumerate(rows):
            yield request_record("SimpleSafetyTests", number, row, where, "prompt", "harmful")
