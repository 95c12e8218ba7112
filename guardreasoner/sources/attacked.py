"""Any source with attacks beside its test records: the same conversation as it is, and as each family rewrites it."""

import logging
from collections.abc import Iterator
from random import Random

from guardreasoner.attacks import FAMILIES, Family, attacked, family_name
from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split, require_unique_ids
from guardreasoner.sources import Source
from guardreasoner.tasks import GUARD_TASKS, Task

log = logging.getLogger("guardreasoner")


class Attacked:
    """Give a source's records and, in the test split, attacked versions of them after those. Gold labels stay.

    An attacked record has the family in its id and in its source ("test/home/00003@base64_text" of
    "embedded/home@base64_text"), so every benchmark has a part for each family. Where a family has nothing to rewrite
    it gives no record; how many these are is logged.

    Args:
        source: gives the records.
        families: what rewrites them, functions or callable objects; None: ``guardreasoner.attacks.FAMILIES``.
        tasks: what the guard decides, and injected answer blocks name; None: the three of GuardReasoner.
        share: share of the test records that are attacked, by a hash of seed and id; each is attacked by all families.
        seed: of that choice, and of the families'.

    Raises:
        InputError: no family, two of one name, or a share out of range. Records are read when they are asked for.
    """

    def __init__(
        self,
        source: Source,
        families: list[Family] | None = None,
        tasks: list[Task] | None = None,
        share: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.source = source
        self.families = FAMILIES if families is None else tuple(families)
        self.tasks = tuple(tasks or GUARD_TASKS)
        self.share = share
        self.seed = seed
        names = [family_name(family) for family in self.families]
        if not names:
            raise InputError("Attacked: families must be one or more")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"Attacked: two families are called {twice!r}; results are told apart by name")
        if not 0 < share <= 1:
            raise InputError(f"Attacked: share must be above 0 and at most 1, got {share}")

    def records(self, split: Split) -> list[Record]:
        """Return the source's records of a split; for the test split, the attacked ones after them, by family.

        Raises:
            InputError: the share leaves no record, an attacked record has the id of another; or what the source raises.
        """
        records = list(self.source.records(split))
        if split != "test" or not records:
            return records
        chosen = [record for record in records if Random(f"{self.seed}/{record.id}").random() < self.share]
        if not chosen:
            raise InputError(f"Attacked: share {self.share} leaves none of {len(records)} test records")
        everything = [*records, *self._attacks(chosen)]
        require_unique_ids(everything, "Attacked")
        log.info(
            "attacks: %s of %s test records, families: %d, attacked records: %s",
            *(f"{len(chosen):,}", f"{len(records):,}", len(self.families), f"{len(everything) - len(records):,}"),
        )
        return everything

    def _attacks(self, records: list[Record]) -> Iterator[Record]:
        for family in self.families:
            rewritten = [attacked(record, family, self.tasks, self.seed) for record in records]
            yield from (record for record in rewritten if record is not None)
            if same := rewritten.count(None):
                name = family_name(family)
                log.info(
                    "attacks: %s has nothing to rewrite in %s of %s records", name, f"{same:,}", f"{len(records):,}"
                )
