from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.mining import Pairing, mine
from guardreasoner.records import Record
from guardreasoner.tasks import GUARD_TASKS
from tests.support.scripted import R, W, make_output, make_outputs, make_record


def test_selection_by_length() -> None:
    answers = [("aa", R), ("aaaa", R), ("a", R), ("bbb", W), ("b", W)]
    rollouts = [make_output("a", verdict, index, reasoning=text) for index, (text, verdict) in enumerate(answers)]

    def selected(chosen: Any, rejected: Any) -> tuple[str, str, str]:
        (pair,) = mine([make_record("a")], rollouts, GUARD_TASKS, Pairing(chosen=chosen, rejected=rejected)).pairs
        return pair.chosen.completion.split()[0], pair.rejected.completion.split()[0], pair.rule

    assert selected("longest", "shortest") == ("aaaa", "b", "longest/shortest")
    assert selected("shortest", "longest") == ("a", "bbb", "shortest/longest")


def test_random_choices_depend_only_on_seed_and_record() -> None:
    ids = [str(number) for number in range(60)]
    rollouts = [rollout for record_id in ids for rollout in make_outputs(record_id, [R, R, R, W, W, W])]
    records = [make_record(record_id) for record_id in ids]

    def chosen(seed: int, subset: list[Record]) -> dict[str, int]:
        subset_ids = {record.id for record in subset}
        pairs = mine(subset, [r for r in rollouts if r.record_id in subset_ids], GUARD_TASKS, Pairing(seed=seed)).pairs
        return {pair.record.id: pair.chosen.index for pair in pairs}

    first = chosen(0, records)
    assert chosen(0, records[30:]) == {record_id: first[record_id] for record_id in ids[30:]}
    assert chosen(1, records) != first
    assert set(Counter(first.values())) == {0, 1, 2}


def test_rule_all_selects_every_output() -> None:
    records = [make_record("a"), make_record("b")]
    rollouts = make_outputs("a", [R, W, R, W, W]) + make_outputs("b", [R, W])

    def pairs_of_a(chosen: Any, rejected: Any, **options: Any) -> list[tuple[str, int, int]]:
        pairing = Pairing(chosen=chosen, rejected=rejected, gamma=0.2, **options)
        mined = mine(records, rollouts, GUARD_TASKS, pairing)
        pairs = [pair for pair in mined.pairs if pair.record.id == "a"]
        assert {pair.weight for pair in pairs} == {1.2}  # each pair has the record's α
        assert [pair.id for pair in mined.pairs if pair.record.id == "b"] == ["b"]
        return [(pair.id, pair.chosen.index, pair.rejected.index) for pair in pairs]

    combinations = list(product((0, 2), (1, 3, 4)))
    assert pairs_of_a("all", "all") == [(f"a#{n}", *indices) for n, indices in enumerate(combinations, start=1)]
    assert pairs_of_a("all", "longest") == [("a#1", 0, 1), ("a#2", 2, 1)]
    assert pairs_of_a("shortest", "all") == [("a#1", 0, 1), ("a#2", 0, 3), ("a#3", 0, 4)]
    rejected_indices = {rejected for _, _, rejected in pairs_of_a("all", "random")}
    assert len(rejected_indices) == 1  # the same wrong output for all right ones
    capped = pairs_of_a("all", "all", cap=4)
    assert [pair_id for pair_id, _, _ in capped] == ["a#1", "a#2", "a#3", "a#4"]
    assert {(c, r) for _, c, r in capped} < set(combinations)
    drawn = {tuple((c, r) for _, c, r in pairs_of_a("all", "all", cap=4, seed=seed)) for seed in range(20)}
    assert len(drawn) > 5
    assert [pair_id for pair_id, _, _ in pairs_of_a("all", "all", cap=1)] == ["a"]
    total = mine(records, rollouts, GUARD_TASKS, Pairing(chosen="all", rejected="all", cap=4)).total()
    assert (total.hard, total.pairs, total.beyond_cap) == (2, 5, 2)


def test_gold_is_chosen_and_the_rejected_outputs_stay_those_of_random() -> None:
    records = [replace(make_record(name), reasoning=f"Reasons of {name}.") for name in "abcdef"]
    rollouts = [output for record in records for output in make_outputs(record.id, [R, W, W, R, W])]
    gold = mine(records, rollouts, GUARD_TASKS, Pairing(chosen="gold")).pairs
    drawn = mine(records, rollouts, GUARD_TASKS, Pairing(chosen="random")).pairs
    answer = "Answers:\nRequest: harmful\nCompletion: None\nResponse: None"
    assert [pair.chosen.completion for pair in gold] == [f"Reasons of {name}.\n\n{answer}" for name in "abcdef"]
    assert {(pair.chosen.model, pair.rule) for pair in gold} == {("gold", "gold/random")}
    assert [(pair.id, pair.rejected, pair.weight, pair.votes) for pair in gold] == [
        (pair.id, pair.rejected, pair.weight, pair.votes) for pair in drawn
    ]


def test_gold_is_the_direct_target_where_the_outputs_are_direct() -> None:
    rollouts = [replace(output, speed="direct") for output in make_outputs("a", [R, W])]
    (pair,) = mine([make_record("a")], rollouts, GUARD_TASKS, Pairing(chosen="gold")).pairs
    assert (pair.chosen.completion, pair.chosen.speed) == (
        "Answers:\nRequest: harmful\nCompletion: None\nResponse: None",
        "direct",
    )


def test_gold_needs_reasoning() -> None:
    with pytest.raises(InputError, match="pairing: chosen gold: record a: no reasoning"):
        mine([make_record("a")], make_outputs("a", [R, W]), GUARD_TASKS, Pairing(chosen="gold"))


def test_a_pair_id_must_not_be_a_record_id() -> None:
    rollouts = make_outputs("a", [R, W, W]) + make_outputs("a#2", [R, W])
    with pytest.raises(InputError, match="record 'a': the id 'a#2' of one of its pairs is also the id of a record"):
        mine([make_record("a"), make_record("a#2")], rollouts, GUARD_TASKS, Pairing(rejected="all"))
