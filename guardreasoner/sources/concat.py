"""Concatenate sources, for example the training data of one and the benchmarks of others."""

from collections.abc import Iterator, Sequence

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources import ExcludesContaminated, Identified, Source, cut_share


class Concat:
    """Concatenate the splits of several sources, in the order of the sources.

    It has an identity if all of them have one.

    Args:
        sources: one or more sources.

    Raises:
        InputError: there is no source. Records are read only when requested.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        if not sources:
            raise InputError("Concat: sources must be one or more")
        self.sources = tuple(sources)
        self._owners: dict[str, int] = {}
        if all(isinstance(source, Identified) for source in self.sources):
            # Set as an attribute so that isinstance(…, Identified) depends on the sources.
            self.identity = self._identity

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split, source by source.

        Raises:
            InputError: two sources share a record id, in any splits, or one has it twice in this split. Errors of the
                sources are passed on.
        """
        seen: set[str] = set()
        for index, source in enumerate(self.sources):
            for record in source.records(split):
                owner = self._owners.setdefault(record.id, index)
                if owner != index or record.id in seen:
                    where = " and ".join(self._name(owner_index) for owner_index in sorted({owner, index}))
                    raise InputError(f"record id {record.id!r} occurs twice, in {where}; ids must be unique")
                seen.add(record.id)
                yield record

    @property
    def excluded_ids(self) -> list[str]:
        """Ids of the records that the sources exclude because a benchmark contains their prompt."""
        excluding = (source for source in self.sources if isinstance(source, ExcludesContaminated))
        return [record_id for source in excluding for record_id in source.excluded_ids]

    @property
    def cut_share(self) -> float:
        """Largest share of the prompts that a source has cut out of its training split."""
        return max(map(cut_share, self.sources))

    def _identity(self) -> object:
        known = [source.identity() for source in self.sources if isinstance(source, Identified)]
        return {"class": "Concat", "sources": known}

    def _name(self, index: int) -> str:
        return f"sources[{index}] ({type(self.sources[index]).__name__})"
