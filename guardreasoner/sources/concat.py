"""Several sources as one: the training data of one and the benchmarks of others, say."""

from collections.abc import Iterator, Sequence

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources import Identified, Source


class Concat:
    """Give the records of several sources, split by split, in the order of the sources.

    It has an identity when all of them have one.

    Args:
        sources: one or more.

    Raises:
        InputError: no source. Records are read when they are asked for.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        if not sources:
            raise InputError("Concat: sources must be one or more")
        self.sources = tuple(sources)
        self._owners: dict[str, int] = {}
        if all(isinstance(source, Identified) for source in self.sources):
            # An attribute, since whoever asks for an identity first asks whether there is one.
            self.identity = self._identity

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split, source by source.

        Raises:
            InputError: two sources have a record of the same id, in whatever splits, or one has it twice in this split;
                or what the sources raise.
        """
        seen: set[str] = set()
        for place, source in enumerate(self.sources):
            for record in source.records(split):
                owner = self._owners.setdefault(record.id, place)
                if owner != place or record.id in seen:
                    where = " and ".join(self._name(one) for one in sorted({owner, place}))
                    raise InputError(f"record id {record.id!r} occurs twice, in {where}; ids must be unique")
                seen.add(record.id)
                yield record

    @property
    def left_out(self) -> list[str]:
        """Ids of the records that the sources leave out of every split since a benchmark holds their prompt."""
        return [identity for source in self.sources for identity in getattr(source, "left_out", ())]

    def _identity(self) -> object:
        known = [source.identity() for source in self.sources if isinstance(source, Identified)]
        return {"class": "Concat", "sources": known}

    def _name(self, place: int) -> str:
        return f"sources[{place}] ({type(self.sources[place]).__name__})"
