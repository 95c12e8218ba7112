"""Base class of public data sets that are used only to test."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import source_identity


class Benchmark(ABC):
    """A data set all of whose records are in the test split.

    Args:
        path: repository on the hub, URL of a repository's files, or a folder with the files.
        revision: branch, tag or commit of a repository on the hub; None for the newest.
    """

    def __init__(self, path: str, revision: str | None = None) -> None:
        self.path = path
        self.revision = revision

    @abstractmethod
    def read(self) -> Iterator[Record]:
        """Yield the records of the test split, part by part, in the order of the rows."""

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of the test split; the other splits are empty.

        Raises:
            InputError: the data set cannot be read, or a row is invalid.
        """
        if split == "test":
            yield from self.read()

    def identity(self) -> object:
        """Return the arguments and, for a local folder, its content hashes."""
        return source_identity(self, self.path)
