"""Attacks on a guard: families that rewrite what it judges and leave what is true of it, the gold labels, as it is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from guardreasoner.attacks.injections import (
    answer_block_in_prompt,
    answer_block_in_response,
    chat_tokens,
    claimed_role,
    ended_conversation,
    hidden_instruction,
    ignore_instructions,
    pseudo_reasoning,
)
from guardreasoner.attacks.spellings import (
    base64_text,
    homoglyphs,
    leetspeak,
    reversed_text,
    spaced_text,
    tag_characters,
    zero_width,
)
from guardreasoner.attacks.surroundings import adversarial_suffix, long_padding
from guardreasoner.records import Record
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
