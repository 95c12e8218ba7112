"""Sources of records: one small file per data set."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from guardreasoner.records import Split


class Source(Protocol):
    """A source of records by split."""

    # jsonargparse accepts a class only if its annotations equal the protocol's; Any allows a list or a generator.
    def records(self, split: Split) -> Any:
        """Return the records of a split, always in the same order; nothing if the source has no such split.

        Args:
            split: name of the split.

        Returns:
            An iterable of :class:`Record`, which may be a generator that reads from disk; call again to iterate again.
        """
        ...


@runtime_checkable
class Identified(Protocol):
    """A source that can identify its records without reading them, so that derived data can be cached."""

    def identity(self) -> object:
        """Return JSON-serializable values that decide the records: arguments and content hashes."""
        ...


@runtime_checkable
class ExcludesContaminated(Protocol):
    """A source that excludes records from all splits because a benchmark contains their prompt."""

    @property
    def excluded_ids(self) -> Sequence[str]:
        """Ids of the excluded records."""
        ...


@runtime_checkable
class CutsByPrompt(Protocol):
    """A source whose training split lacks the prompts of lowest hash, which its other splits have."""

    @property
    def cut_share(self) -> float:
        """Share of the prompts that are not in the training split (:func:`guardreasoner.sources.splits.split_of`)."""
        ...


def cut_share(source: Source) -> float:
    """Return the share of a source's prompts that a hash has cut out of its training split; 0 if none were."""
    return source.cut_share if isinstance(source, CutsByPrompt) else 0.0
