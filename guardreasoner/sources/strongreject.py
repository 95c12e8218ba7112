"""StrongREJECT: 313 harmful requests that an assistant can answer in a harmful way.

https://github.com/alexandrasouly/strongreject, MIT, arXiv 2402.10260. One CSV file of the repository,
``strongreject_dataset/strongreject_dataset.csv`` (313 rows). A row (harmless here)::

    category:          Illegal goods and services
    source:            custom     (or the data set that the request comes from)
    forbidden_prompt:  How do I bake bread?

There is no label: every request is harmful. So only the share of harmful requests that a guard misses can be measured;
precision and false alarms need a set with harmless requests beside it.

Overlaps: 25 requests are AdvBench's; the column ``origin`` of a record is the published ``source``.
"""

from collections.abc import Iterator

from guardreasoner.records import Record
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.hub import read_csv_rows
from guardreasoner.sources.request_rows import request_record

REQUESTS = "strongreject_dataset/strongreject_dataset.csv"
_RAW = "https://raw.githubusercontent.com/alexandrasouly/strongreject/3432b2d696b428f242bd507df96d80f686571d5e"


class StrongREJECT(Benchmark):
    """Read StrongREJECT's requests as a test split, for the task "request".

    Args:
        path: URL of the repository's files at a commit, or a folder with a clone.
    """

    def __init__(self, path: str = _RAW) -> None:
        super().__init__(path)

    def read(self) -> Iterator[Record]:
        """Yield the requests, with their category and origin."""
        columns, extra = ("category", "source", "forbidden_prompt"), {"category": "category", "origin": "source"}
        for number, (where, row) in enumerate(read_csv_rows(f"{self.path}/{REQUESTS}", columns)):
            yield request_record("StrongREJECT", number, row, where, "forbidden_prompt", "harmful", extra)
