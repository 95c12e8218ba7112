"""Attacked versions of records beside the records themselves."""

import logging
from collections import Counter
from collections.abc import Sequence

import pytest

from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import (
    FAMILIES,
    Attacks,
    answer_block_in_response,
    attack_record,
    base64_text,
    chat_tokens,
    claimed_role,
    leetspeak,
    origin,
)
from guardreasoner.records import Record
from guardreasoner.tasks import Task

# Each fourth has no response.
RECORDS = [
    Record(
        f"test/{n}",
        f"Where does the door with the number {n} lead to?",
        f"It is {n}." if n % 4 else None,
        {"request": "harmful"},
        None,
        "doors",
    )
    for n in range(40)
]


def test_the_originals_come_first_and_then_family_by_family() -> None:
    found = Attacks([leetspeak, claimed_role]).with_attacked(RECORDS)
    expected = [attack_record(record, family) for family in (leetspeak, claimed_role) for record in RECORDS]
    assert found == [*RECORDS, *expected]


def test_all_families_are_the_default() -> None:
    found = Attacks().with_attacked(RECORDS)
    counts = Counter(where[1] for record in found if (where := origin(record)) is not None)
    assert counts == {family.__name__: 30 if family is answer_block_in_response else 40 for family in FAMILIES}  # type: ignore[attr-defined]
    assert {record.source for record in found} == {"doors", *(f"doors@{name}" for name in counts)}


def test_what_cannot_be_attacked_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "guardreasoner"):
        Attacks([answer_block_in_response]).with_attacked(RECORDS)
    assert caplog.messages == [
        "attacks: answer_block_in_response has nothing to rewrite in 10 of 40 records",
        "attacks: 40 of 40 records, families: 1, attacked records: 30",
    ]


def test_a_share_is_the_same_for_all_families_and_whatever_the_order() -> None:
    def chosen(records: Sequence[Record], seed: int) -> dict[str, set[str]]:
        by_family: dict[str, set[str]] = {}
        for record in Attacks([leetspeak, base64_text], share=0.3, seed=seed).with_attacked(records):
            if (where := origin(record)) is not None:
                by_family.setdefault(where[1], set()).add(where[0])
        return by_family

    found = chosen(RECORDS, 1)
    assert found["leetspeak"] == found["base64_text"]
    assert 4 < len(found["leetspeak"]) < 20
    assert chosen(RECORDS[::-1], 1) == found
    assert chosen(RECORDS, 2) != found


def test_ones_own_tasks_are_what_is_injected() -> None:
    desk = [Task("category", "Category", "which?", ("keys", "water"))]
    found = Attacks([chat_tokens], desk).with_attacked(RECORDS)
    assert all("Answers:\nCategory: water" in record.prompt for record in found[40:])


def test_an_attacked_id_that_is_there_already_is_refused() -> None:
    with pytest.raises(InputError, match="record id 'test/1@leetspeak' occurs twice"):
        Attacks([leetspeak]).with_attacked([*RECORDS, Record("test/1@leetspeak", "p")])


def test_no_record_stays_none() -> None:
    assert Attacks().with_attacked([]) == []


def test_settings_that_cannot_be() -> None:
    for arguments, what in (
        ({"families": []}, "families must not be empty"),
        ({"families": [leetspeak, leetspeak]}, "two families are named 'leetspeak'"),
        ({"share": 0.0}, "share must be above 0"),
        ({"share": 1.1}, "share must be above 0 and at most 1, got 1.1"),
    ):
        with pytest.raises(InputError, match=what):
            Attacks(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="share 1e-09 selects none of 40 records"):
        Attacks(share=1e-9).with_attacked(RECORDS)
