"""Where records come from: one small file a data set."""

from typing import Any, Protocol, runtime_checkable

from guardreasoner.records import Split


class Source(Protocol):
    """Anything that yields records by split."""

    # The command line takes a class for a source only if its annotation is equal; Any lets one return a list or yield.
    def records(self, split: Split) -> Any:
        """Return the records of a split, always in the same order; nothing where the source has none.

        Args:
            split: which.

        Returns:
            An iterable of :class:`Record`. It may be read once, from the disk as it is needed: ask again to read again.
        """
        ...


@runtime_checkable
class Identified(Protocol):
    """A source that can say which records it gives without reading them; what is made from it can then be kept."""

    def identity(self) -> object:
        """Return what decides the records: arguments and content hashes, as JSON could hold them."""
        ...
