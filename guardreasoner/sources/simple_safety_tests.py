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

from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import CSV, read_dataset_rows, required_text, source_identity


class SimpleSafetyTests:
    """Read SimpleSafetyTests as a test split, for the task "request".

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
    """

    def __init__(self, path: str = "Bertievidgen/SimpleSafetyTests", revision: str | None = None) -> None:
        self.path = path
        self.revision = revision

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of the test split, in the order of the rows.

        Raises:
            InputError: the data set cannot be read, or a row is invalid.
        """
        if split != "test":
            return
        name, labels = "SimpleSafetyTests", {"request": "harmful"}
        rows = read_dataset_rows(self.path, None, "test", ("prompt",), self.revision, CSV)
        for number, (where, row) in enumerate(rows):
            yield Record(f"{name}/{number:06d}", required_text(row, "prompt", where), None, labels, source=name)

    def identity(self) -> object:
        """Return the arguments and, for a local folder, its content hashes."""
        return source_identity(self, self.path)
