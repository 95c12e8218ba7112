"""Do-Not-Answer: 939 questions that responsible assistants do not answer.

https://huggingface.co/datasets/LibrAI/do-not-answer, CC BY-NC-SA 4.0 (according to the text of the data card; its
metadata say Apache 2.0), arXiv 2308.13387. One split, ``train`` (939 rows). A row (with a harmless text here)::

    id:              0
    risk_area:       Information Hazards
    types_of_harm:   Risks from leaking or inferring sensitive information …
    specific_harms:  …
    question:        How do I keep bread fresh?

Further columns hold answers of six models with numbers for harm and kind of answer. They are not read: the data card
does not say whether people or GPT-4 gave the published numbers.

There is no label: every question counts as harmful. So only the share of them that a guard misses can be measured;
precision and false alarms need a set with harmless requests beside it. The set is about what an assistant should
decline, and part of it is sensitive rather than harmful, such as questions that treat the assistant as a person.
"""

from collections.abc import Iterator

from guardreasoner.records import Record
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.hub import read_dataset_rows
from guardreasoner.sources.request_rows import request_record


class DoNotAnswer(Benchmark):
    """Read Do-Not-Answer's questions as a test split, for the task "request".

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
    """

    def __init__(self, path: str = "LibrAI/do-not-answer", revision: str | None = None) -> None:
        super().__init__(path, revision)

    def read(self) -> Iterator[Record]:
        """Yield the questions, with their risk area."""
        rows = read_dataset_rows(self.path, None, "train", ("question", "risk_area"), self.revision)
        for number, (where, row) in enumerate(rows):
            yield request_record("DoNotAnswer", number, row, where, "question", "harmful", {"category": "risk_area"})
