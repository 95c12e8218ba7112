"""Base class of public data sets with a training and a test split."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import require_splits, select_training_split, source_identity
from guardreasoner.sources.splits import require_shares


class TrainAndTest(ABC):
    """A data set whose validation split is cut out of its training split by a hash of the normalized prompt.

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
        splits: splits to provide; the others are empty.
        validation_share: share of the training set's distinct prompts for the validation split.

    Raises:
        InputError: a split is unknown or a share is out of range. Rows are read only when records are requested.
    """

    def __init__(self, path: str, revision: str | None, splits: Sequence[Split], validation_share: float) -> None:
        name = type(self).__name__
        self.path = path
        self.revision = revision
        self.splits = require_splits(name, splits)
        self.validation_share = validation_share
        require_shares(name, validation_share)

    @abstractmethod
    def read(self, split: Literal["train", "test"]) -> Iterator[Record]:
        """Yield the records of a published split, in the order of the rows."""

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split, in the order of the rows.

        Raises:
            InputError: the data set cannot be read, or a row is invalid.
        """
        if split not in self.splits:
            return
        if split == "test":
            yield from self.read("test")
        else:
            yield from select_training_split(self.read("train"), split, self.validation_share)

    @property
    def cut_share(self) -> float:
        """Share of the prompts that the validation split has."""
        return self.validation_share

    def identity(self) -> object:
        """Return the arguments and, for a local folder, its content hashes."""
        return source_identity(self, self.path)
