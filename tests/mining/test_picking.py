from collections import Counter
from itertools import product
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.mining import Pairing, mine
from guardreasoner.records import Record
from guardreasoner.tasks import GUARD_TASKS
from tests.support.scripted import R, W, asked, output, outputs


def test_lengths_choose() -> None:
    words = [("aa", R), ("aaaa", R), ("a", R), ("bbb", W), ("b", W)]
    rollouts = [output("a", word, index, reasoning=text) for index, (text, word) in enumerate(words)]

    def picked(chosen: Any, rejected: Any) -> tuple[str, str, str]:
        (pair,) = mine([asked("a")], rollouts, GUARD_TASKS, Pairing(chosen=chosen, rejected=rejected)).pairs
        return pair.chosen.completion.split()[0], pair.rejected.completion.split()[0], pair.rule

    assert picked("longest", "shortest") == ("aaaa", "b", "longest/shortest")
    assert picked("shortest", "longest") == ("a", "bbb", "shortest/longest")


def test_random_choices_depend_on_seed_and_record_alone() -> None:
    names = [str(number) for number in range(60)]
    rollouts = [rollout for name in names for rollout in outputs(name, [R, R, R, W, W, W])]
    records = [asked(name) for name in names]

    def chosen(seed: int, some: list[Record]) -> dict[str, int]:
        own = {record.id for record in some}
        pairs = mine(some, [r for r in rollouts if r.record_id in own], GUARD_TASKS, Pairing(seed=seed)).pairs
        return {pair.record.id: pair.chosen.index for pair in pairs}

    first = chosen(0, records)
    assert chosen(0, records[30:]) == {name: first[name] for name in names[30:]}
    assert chosen(1, records) != first
    assert set(Counter(first.values())) == {0, 1, 2}


def test_all_takes_every_right_and_every_wrong_output() -> None:
    records = [asked("a"), asked("b")]
    rollouts = outputs("a", [R, W, R, W, W]) + outputs("b", [R, W])

    def found(chosen: Any, rejected: Any, **more: Any) -> list[tuple[str, int, int]]:
        pairing = Pairing(chosen=chosen, rejected=rejected, gamma=0.2, **more)
        mined = mine(records, rollouts, GUARD_TASKS, pairing)
        of_a = [pair for pair in mined.pairs if pair.record.id == "a"]
        assert {pair.weight for pair in of_a} == {1.2}  # each has the record's α
        assert [pair.id for pair in mined.pairs if pair.record.id == "b"] == ["b"]
        return [(pair.id, pair.chosen.index, pair.rejected.index) for pair in of_a]

    every = list(product((0, 2), (1, 3, 4)))
    assert found("all", "all") == [(f"a#{n}", *both) for n, both in enumerate(every, start=1)]
    assert found("all", "longest") == [("a#1", 0, 1), ("a#2", 2, 1)]
    assert found("shortest", "all") == [("a#1", 0, 1), ("a#2", 0, 3), ("a#3", 0, 4)]
    one = {rejected for _, _, rejected in found("all", "random")}
    assert len(one) == 1  # one wrong output is drawn for all right ones
    capped = found("all", "all", cap=4)
    assert [name for name, _, _ in capped] == ["a#1", "a#2", "a#3", "a#4"]
    assert {(c, r) for _, c, r in capped} < set(every)
    drawn = {tuple((c, r) for _, c, r in found("all", "all", cap=4, seed=seed)) for seed in range(20)}
    assert len(drawn) > 5
    assert [name for name, _, _ in found("all", "all", cap=1)] == ["a"]
    total = mine(records, rollouts, GUARD_TASKS, Pairing(chosen="all", rejected="all", cap=4)).total()
    assert (total.hard, total.pairs, total.beyond_cap) == (2, 5, 2)


def test_no_pair_is_called_like_a_record() -> None:
    rollouts = outputs("a", [R, W, W]) + outputs("a#2", [R, W])
    with pytest.raises(InputError, match="record 'a': one of its 2 pairs would be called 'a#2', as a record is"):
        mine([asked("a"), asked("a#2")], rollouts, GUARD_TASKS, Pairing(rejected="all"))
