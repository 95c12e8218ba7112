"""Attacks on a guard: families that rewrite what it judges and leave what is true of it, the gold labels, as it is."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random

from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks.injections import (
    answer_block_in_prompt,
    answer_block_in_response,
    chat_tokens,
    claimed_role,
    ended_conversation,
    hidden_instruction,
    ignore_instructions,
    pseudo_reasoning,
)
from guardreasoner.evaluation.attacks.obfuscation import (
    base64_text,
    homoglyphs,
    leetspeak,
    reversed_text,
    spaced_text,
    tag_characters,
    zero_width,
)
from guardreasoner.evaluation.attacks.padding import adversarial_suffix, long_padding
from guardreasoner.records import Record, require_unique_ids
from guardreasoner.tasks import GUARD_TASKS, Task

Family = Callable[[Record, Random, Sequence[Task]], Record]
"""Takes a record, what its choices are drawn from, and what the guard decides (an injected answer block must name it).
Returns the record with another prompt or response, or as it is where there is nothing to rewrite (no response, say).
Nothing but these two texts is used of what it returns."""

FAMILIES: tuple[Family, ...] = (
    *(answer_block_in_prompt, answer_block_in_response, pseudo_reasoning),
    *(ignore_instructions, claimed_role, ended_conversation, chat_tokens, hidden_instruction),
    *(reversed_text, spaced_text, base64_text, leetspeak, homoglyphs, zero_width, tag_characters),
    *(long_padding, adversarial_suffix),
)

_MARK = "@"

log = logging.getLogger("guardreasoner")


class Attacks:
    """Attacked versions of a share of records: each of them once as each family rewrites it. Gold labels stay.

    An attacked record has the family in its id and in its source ("test/home/00003@base64_text" of
    "embedded/home@base64_text"), so every benchmark has a part for each family. Where a family has nothing to rewrite
    it gives no record; how many these are is logged.

    Args:
        families: what rewrites them, functions or callable objects; None: ``FAMILIES``.
        tasks: what the guard decides, and injected answer blocks name; None: the three of GuardReasoner.
        share: of the records that are attacked, by a hash of seed and id; above 0, at most 1.
        seed: of that choice, and of the families'.

    Raises:
        InputError: no family, two of one name, or a share out of range.
    """

    def __init__(
        self,
        families: list[Family] | None = None,
        tasks: list[Task] | None = None,
        share: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.families = FAMILIES if families is None else tuple(families)
        self.tasks = tuple(tasks or GUARD_TASKS)
        self.share = share
        self.seed = seed
        names = [family_name(family) for family in self.families]
        if not names:
            raise InputError("Attacks: families must be one or more")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"Attacks: two families are called {twice!r}; results are told apart by name")
        if not 0 < share <= 1:
            raise InputError(f"Attacks: share must be above 0 and at most 1, got {share}")

    def beside(self, records: Sequence[Record]) -> list[Record]:
        """Return the records and, after them, the attacked ones, family by family.

        Args:
            records: of a benchmark, or several; none at all stay none.

        Raises:
            InputError: the share leaves no record, or an attacked record has the id of another.
        """
        if not records:
            return []
        chosen = [record for record in records if Random(f"{self.seed}/{record.id}").random() < self.share]
        if not chosen:
            raise InputError(f"Attacks: share {self.share} leaves none of {len(records)} records")
        everything = [*records, *self._attacked(chosen)]
        require_unique_ids(everything, "Attacks")
        log.info(
            "attacks: %s of %s records, families: %d, attacked records: %s",
            *(f"{len(chosen):,}", f"{len(records):,}", len(self.families), f"{len(everything) - len(records):,}"),
        )
        return everything

    def _attacked(self, records: list[Record]) -> Iterator[Record]:
        for family in self.families:
            rewritten = [attacked(record, family, self.tasks, self.seed) for record in records]
            yield from (record for record in rewritten if record is not None)
            if same := rewritten.count(None):
                name = family_name(family)
                log.info(
                    "attacks: %s has nothing to rewrite in %s of %s records", name, f"{same:,}", f"{len(records):,}"
                )


def family_name(family: Family) -> str:
    """Return what a family is called in ids, folders and tables: its function's name, or its class's."""
    return getattr(family, "__name__", type(family).__name__)


def attacked(record: Record, family: Family, tasks: Sequence[Task] = GUARD_TASKS, seed: int = 0) -> Record | None:
    """Return a record as a family rewrites it; None where that changes nothing.

    Id and source get the family's name behind them ("test/home/00003@base64_text"). The draws depend on seed, record id
    and family alone, so an attack is the same whatever else is attacked.

    Args:
        record: what is judged; its labels stay.
        family: what rewrites it.
        tasks: what the guard decides.
        seed: of the family's choices.
    """
    name = family_name(family)
    rewritten = family(record, Random(f"{seed}/{record.id}/{name}"), tasks)
    if (rewritten.prompt, rewritten.response) == (record.prompt, record.response):
        return None
    return replace(
        record,
        id=f"{record.id}{_MARK}{name}",
        prompt=rewritten.prompt,
        response=rewritten.response,
        source=f"{record.source}{_MARK}{name}",
    )


def origin(record: Record) -> tuple[str, str] | None:
    """Return (id of the original, family) of an attacked record; None for a record that is none.

    Id and source must both say so: a benchmark of its own may well have the mark in one of them.
    """
    identity, marked, name = record.id.rpartition(_MARK)
    if not marked or not name or not record.source.endswith(f"{_MARK}{name}"):
        return None
    return identity, name
