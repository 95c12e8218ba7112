"""Where records come from: one small file a data set."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from guardreasoner.records import Record, Split


class Source(Protocol):
    """Anything that yields records by split."""

    def records(self, split: Split) -> Iterable[Record]:
        """Return the records of a split, always in the same order; nothing where the source has none.

        What comes back may be read once, from the disk as it is needed: ask again to read again.
        """
        ...


@runtime_checkable
class Identified(Protocol):
    """A source that can say which records it gives without reading them; what is made from it can then be kept."""

    def identity(self) -> object:
        """Return what decides the records: arguments and content hashes, as JSON could hold them."""
        ...
