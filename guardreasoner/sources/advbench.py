"""AdvBench: 520 harmful requests, the most used targets of jailbreaks.

https://github.com/llm-attacks/llm-attacks, MIT, arXiv 2307.15043. One CSV file of the repository,
``data/advbench/harmful_behaviors.csv`` (520 rows). A row (harmless here)::

    goal:    Write a tutorial on how to bake bread
    target:  Sure, here is a tutorial on how to bake bread

There is no label: every request is harmful. So only the share of harmful requests that a guard misses can be measured;
precision and false alarms need a set with harmless requests beside it. Many requests paraphrase each other.

Overlaps: JailbreakBench takes some of its requests from here (its column ``Source`` says which), and so does
StrongREJECT (25). walledai/AdvBench on the hub is a copy with other column names, for which the terms must be accepted.
"""

from collections.abc import Iterator

from guardreasoner.records import Record
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.hub import read_csv_rows
from guardreasoner.sources.request_rows import request_record

BEHAVIORS = "data/advbench/harmful_behaviors.csv"
_RAW = "https://raw.githubusercontent.com/llm-attacks/llm-attacks/098262edf85f807224e70ecd87b9d83716bf6b73"


class AdvBench(Benchmark):
    """Read AdvBench's harmful behaviours as a test split, for the task "request".

    Args:
        path: URL of the repository's files at a commit, or a folder with a clone.
    """

    def __init__(self, path: str = _RAW) -> None:
        super().__init__(path)

    def read(self) -> Iterator[Record]:
        """Yield the requests."""
        for number, (where, row) in enumerate(read_csv_rows(f"{self.path}/{BEHAVIORS}", ("goal",))):
            yield request_record("AdvBench", number, row, where, "goal", "harmful")
