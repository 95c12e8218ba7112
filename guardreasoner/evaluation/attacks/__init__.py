"""Attacks on a guard: families of rewrites of the judged text that do not change its gold labels."""

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
    false_policy,
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
from guardreasoner.workflow.ranges import PositiveShare, Seed

Family = Callable[[Record, Random, Sequence[Task]], Record]
"""Rewrites the prompt or response of a record.

It takes the record, the source of its random choices, and the tasks of the guard, which an injected answer block names.
It returns the record unchanged if there is nothing to rewrite, such as a missing response. Of the returned record, only
the prompt and the response are used."""

FAMILIES: tuple[Family, ...] = (
    *(answer_block_in_prompt, answer_block_in_response, pseudo_reasoning),
    *(ignore_instructions, claimed_role, ended_conversation, chat_tokens, hidden_instruction, false_policy),
    *(reversed_text, spaced_text, base64_text, leetspeak, homoglyphs, zero_width, tag_characters),
    *(long_padding, adversarial_suffix),
)

_SEPARATOR = "@"
"""Separates the id or source of the original from the name of the family."""

log = logging.getLogger("guardreasoner")


class Attacks:
    """Attacked versions of a share of the records, one for each family; the gold labels stay.

    The id and the source of an attacked record end in the name of the family ("test/home/00003@base64_text" of
    "embedded/home@base64_text"), so that results are reported by benchmark and family. A family that cannot rewrite a
    record adds none; the number of these is logged.

    Args:
        families: functions or callable objects that rewrite records; None for ``FAMILIES``.
        tasks: tasks of the guard, which injected answer blocks name; None for the three of GuardReasoner.
        share: share of the records that are attacked, chosen by a hash of seed and id; above 0, at most 1.
        seed: seed of that choice and of the choices of the families.

    Raises:
        InputError: if there is no family, if two families have the same name, or if the share is out of range.
    """

    def __init__(
        self,
        families: list[Family] | None = None,
        tasks: list[Task] | None = None,
        share: PositiveShare = 1.0,
        seed: Seed = 0,
    ) -> None:
        self.families = FAMILIES if families is None else tuple(families)
        self.tasks = tuple(tasks or GUARD_TASKS)
        self.share = share
        self.seed = seed
        names = [family_name(family) for family in self.families]
        if not names:
            raise InputError("Attacks: families must not be empty")
        if duplicate := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"Attacks: two families are named {duplicate!r}; names must be distinct")
        if not 0 < share <= 1:
            raise InputError(f"Attacks: share must be above 0 and at most 1, got {share}")

    def with_attacked(self, records: Sequence[Record]) -> list[Record]:
        """Return the records followed by the attacked ones, family by family.

        Args:
            records: records of one or more benchmarks; the result is empty if there are none.

        Raises:
            InputError: if the share selects no record, or if an attacked record has the id of another record.
        """
        if not records:
            return []
        selected = [record for record in records if Random(f"{self.seed}/{record.id}").random() < self.share]
        if not selected:
            raise InputError(f"Attacks: share {self.share} selects none of {len(records)} records")
        result = [*records, *self._attack(selected)]
        require_unique_ids(result, "Attacks")
        log.info(
            "attacks: %s of %s records, families: %d, attacked records: %s",
            *(f"{len(selected):,}", f"{len(records):,}", len(self.families), f"{len(result) - len(records):,}"),
        )
        return result

    def _attack(self, records: list[Record]) -> Iterator[Record]:
        for family in self.families:
            attacked = [attack_record(record, family, self.tasks, self.seed) for record in records]
            yield from (record for record in attacked if record is not None)
            if unchanged := attacked.count(None):
                name, counts = family_name(family), (f"{unchanged:,}", f"{len(records):,}")
                log.info("attacks: %s has nothing to rewrite in %s of %s records", name, *counts)


def family_name(family: Family) -> str:
    """Return the name of a family in ids, folders and tables: that of its function or class."""
    return getattr(family, "__name__", type(family).__name__)


def attack_record(record: Record, family: Family, tasks: Sequence[Task] = GUARD_TASKS, seed: int = 0) -> Record | None:
    """Return a record as a family rewrites it; None if the family changes nothing.

    The name of the family is appended to id and source ("test/home/00003@base64_text"). The random choices depend only
    on seed, record id and family, so an attack does not depend on what else is attacked.

    Args:
        record: the original; its labels stay.
        family: the family that rewrites it.
        tasks: tasks of the guard.
        seed: seed of the choices of the family.
    """
    name = family_name(family)
    rewritten = family(record, Random(f"{seed}/{record.id}/{name}"), tasks)
    if rewritten.messages == record.messages:
        return None
    return replace(
        record,
        id=f"{record.id}{_SEPARATOR}{name}",
        messages=rewritten.messages,
        source=f"{record.source}{_SEPARATOR}{name}",
    )


def origin(record: Record) -> tuple[str, str] | None:
    """Return (id of the original, family) of an attacked record; None for any other record.

    Both id and source must end in the family: the ids of a user's own benchmark may contain the separator.
    """
    original_id, separator, name = record.id.rpartition(_SEPARATOR)
    if not separator or not name or not record.source.endswith(f"{_SEPARATOR}{name}"):
        return None
    return original_id, name
