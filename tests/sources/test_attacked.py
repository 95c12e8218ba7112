"""Attacked versions of test records beside the records themselves."""

import logging
from collections import Counter

import pytest

from guardreasoner.attacks import (
    FAMILIES,
    answer_block_in_response,
    attacked,
    base64_text,
    chat_tokens,
    claimed_role,
    leetspeak,
    origin,
)
from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources.attacked import Attacked
from guardreasoner.tasks import Task


class Doors:
    """Forty test records, each fourth without a response; two of another split."""

    def records(self, split: Split) -> list[Record]:
        if split != "test":
            return [Record(f"{split}/{number}", "Good day.", labels={"request": "unharmful"}) for number in range(2)]
        return [
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


RECORDS = Doors().records("test")


def test_the_originals_come_first_and_then_family_by_family() -> None:
    found = Attacked(Doors(), [leetspeak, claimed_role]).records("test")
    expected = [attacked(record, family) for family in (leetspeak, claimed_role) for record in RECORDS]
    assert found == [*RECORDS, *expected]


def test_all_families_are_the_default() -> None:
    found = Attacked(Doors()).records("test")
    counts = Counter(where[1] for record in found if (where := origin(record)) is not None)
    assert counts == {family.__name__: 30 if family is answer_block_in_response else 40 for family in FAMILIES}  # type: ignore[attr-defined]
    assert {record.source for record in found} == {"doors", *(f"doors@{name}" for name in counts)}


def test_what_cannot_be_attacked_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "guardreasoner"):
        Attacked(Doors(), [answer_block_in_response]).records("test")
    assert caplog.messages == [
        "attacks: answer_block_in_response has nothing to rewrite in 10 of 40 records",
        "attacks: 40 of 40 test records, families: 1, attacked records: 30",
    ]


def test_other_splits_are_left_alone() -> None:
    for split in ("train", "validation"):
        assert Attacked(Doors()).records(split) == Doors().records(split)


def test_a_share_is_the_same_for_all_families_and_whatever_the_order() -> None:
    class Backwards(Doors):
        def records(self, split: Split) -> list[Record]:
            return super().records(split)[::-1]

    def chosen(source: Attacked) -> dict[str, set[str]]:
        by_family: dict[str, set[str]] = {}
        for record in source.records("test"):
            if (where := origin(record)) is not None:
                by_family.setdefault(where[1], set()).add(where[0])
        return by_family

    found = chosen(Attacked(Doors(), [leetspeak, base64_text], share=0.3, seed=1))
    assert found["leetspeak"] == found["base64_text"]
    assert 4 < len(found["leetspeak"]) < 20
    assert chosen(Attacked(Backwards(), [leetspeak, base64_text], share=0.3, seed=1)) == found
    assert chosen(Attacked(Doors(), [leetspeak, base64_text], share=0.3, seed=2)) != found


def test_ones_own_tasks_are_what_is_injected() -> None:
    desk = [Task("category", "Category", "which?", ("keys", "water"))]
    found = Attacked(Doors(), [chat_tokens], desk).records("test")
    assert all("Answers:\nCategory: water" in record.prompt for record in found[40:])


def test_an_attacked_id_that_is_there_already_is_refused() -> None:
    class Twice(Doors):
        def records(self, split: Split) -> list[Record]:
            return [*super().records(split), Record("test/1@leetspeak", "p")]

    with pytest.raises(InputError, match="record id 'test/1@leetspeak' occurs twice"):
        Attacked(Twice(), [leetspeak]).records("test")


def test_an_empty_split_stays_empty() -> None:
    class Nothing:
        def records(self, split: Split) -> list[Record]:
            return []

    assert Attacked(Nothing()).records("test") == []


def test_settings_that_cannot_be() -> None:
    for arguments, what in (
        ({"families": []}, "families must be one or more"),
        ({"families": [leetspeak, leetspeak]}, "two families are called 'leetspeak'"),
        ({"share": 0.0}, "share must be above 0"),
        ({"share": 1.1}, "share must be above 0 and at most 1, got 1.1"),
    ):
        with pytest.raises(InputError, match=what):
            Attacked(Doors(), **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="share 1e-09 leaves none of 40 test records"):
        Attacked(Doors(), share=1e-9).records("test")
