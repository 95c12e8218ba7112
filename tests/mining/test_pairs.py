import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.mining import Pairing, grade, mine
from guardreasoner.records import FILE_FINGERPRINT
from guardreasoner.sources.rollouts import read_rollout_folders
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.disk_list import DiskList
from tests.support.scripted import (
    R,
    RecordsAndRollouts,
    U,
    W,
    make_outputs,
    make_record,
    output_with_verdicts,
    pairings,
    records_with_rollouts,
)


@given(records_with_rollouts(), pairings, st.randoms(use_true_random=False))
def test_the_result_does_not_depend_on_the_order_of_the_inputs(
    records_and_rollouts: RecordsAndRollouts, pairing: Pairing, rng: random.Random
) -> None:
    records, rollouts = records_and_rollouts
    mined = mine(records, rollouts, GUARD_TASKS, pairing)
    assert mine(DiskList(records), DiskList(rng.sample(rollouts, len(rollouts))), GUARD_TASKS, pairing) == mined
    shuffled = mine(rng.sample(records, len(records)), rollouts, GUARD_TASKS, pairing)
    # the sort is stable, so the pairs of one record keep their order
    assert sorted(shuffled.pairs, key=lambda pair: int(pair.record.id)) == mined.pairs
    assert shuffled.counts == mined.counts


@given(records_with_rollouts(), pairings)
@settings(max_examples=200)
def test_pairs_agree_with_grades_votes_and_counts(records_and_rollouts: RecordsAndRollouts, pairing: Pairing) -> None:
    records, rollouts = records_and_rollouts
    mined = mine(records, rollouts, GUARD_TASKS, pairing)
    assert len({pair.id for pair in mined.pairs}) == len(mined.pairs)
    pairs_per_record = Counter(pair.record.id for pair in mined.pairs)
    assert all(count <= pairing.cap for count in pairs_per_record.values())
    if "all" not in (pairing.chosen, pairing.rejected):
        assert set(pairs_per_record.values()) <= {1}
    for pair in mined.pairs:
        assert (pair.id == pair.record.id) == (pairs_per_record[pair.record.id] == 1)
        assert 1 - pairing.gamma - 1e-9 <= pair.weight <= 1 + pairing.gamma + 1e-9
        assert grade(pair.record, pair.chosen.completion, GUARD_TASKS)["request"] is True
        wrong = (False, None) if pairing.unparsable == "wrong" else (False,)
        assert grade(pair.record, pair.rejected.completion, GUARD_TASKS)["request"] in wrong
        assert pair.excess_errors == pair.votes.count(False) - pair.votes.count(True)
        assert pair.chosen.record_id == pair.rejected.record_id == pair.record.id
        if not pairing.pool:
            assert pair.chosen.model == pair.rejected.model
    for counts in mined.counts.values():
        assert counts.groups == counts.all_right + counts.mixed + counts.all_wrong + counts.too_few
        assert counts.pairs >= counts.hard == counts.mixed - counts.duplicates
        assert counts.dropped == (counts.unparsed if pairing.unparsable == "drop" else 0)
    total = mined.total()
    assert (total.pairs, total.outputs, total.hard) == (len(mined.pairs), len(rollouts), len(pairs_per_record))
    assert sum(len(row.grades) for row in mined.record_grades) == len(rollouts)


@given(st.integers(1, 4), st.floats(0, 0.99))
def test_equally_hard_records_have_weight_one(count: int, gamma: float) -> None:
    records = [make_record(str(number)) for number in range(count)]
    rollouts = [rollout for record in records for rollout in make_outputs(record.id, [R, W, W])]
    assert [pair.weight for pair in mine(records, rollouts, GUARD_TASKS, Pairing(gamma=gamma)).pairs] == [1.0] * count


@given(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_four_outputs_give_three_weights(wrong: list[int], rng: random.Random) -> None:
    wrong = [*wrong, 1, 2, 3]  # excess errors of −2, 0 and 2 all occur
    rng.shuffle(wrong)
    records = [make_record(str(number)) for number in range(len(wrong))]
    rollouts = [
        o for record, n in zip(records, wrong, strict=True) for o in make_outputs(record.id, [R] * (4 - n) + [W] * n)
    ]
    for pool in (True, False):
        pairs = mine(records, rollouts, GUARD_TASKS, Pairing(pool=pool, gamma=0.2)).pairs
        assert [pair.weight for pair in pairs] == pytest.approx([{1: 0.8, 2: 1.0, 3: 1.2}[n] for n in wrong])


def test_weights_of_four_outputs() -> None:
    votes = {"a": [R, W, W, W], "b": [R, R, W, W], "c": [R, R, R, W]}
    rollouts = [rollout for record_id, verdicts in votes.items() for rollout in make_outputs(record_id, verdicts)]
    pairs = mine([make_record(name) for name in votes], rollouts, GUARD_TASKS, Pairing(pool=False, gamma=0.2)).pairs
    assert [pair.excess_errors for pair in pairs] == [2, 0, -2]
    assert [pair.weight for pair in pairs] == pytest.approx([1.2, 1.0, 0.8])


def test_weights_are_scaled_over_all_records_or_per_model_and_source() -> None:
    records = [make_record("a", "s"), make_record("b", "s"), make_record("c", "t"), make_record("d", "t")]
    votes = {"a": [R, W, W, W], "b": [R, R, W, W], "c": [R, R, W, W], "d": [R, R, R, W]}
    rollouts = [rollout for record_id, verdicts in votes.items() for rollout in make_outputs(record_id, verdicts)]

    def weights(pool: bool) -> list[float]:
        return [pair.weight for pair in mine(records, rollouts, GUARD_TASKS, Pairing(pool=pool, gamma=0.5)).pairs]

    assert weights(pool=True) == pytest.approx([1.5, 1.0, 1.0, 0.5])
    assert weights(pool=False) == pytest.approx([1.5, 0.5, 1.5, 0.5])


def test_pooling_finds_records_that_are_hard_for_no_single_model() -> None:
    records = [make_record("a"), make_record("b")]
    rollouts = (
        make_outputs("a", [R, R], "m")
        + make_outputs("a", [W, W], "n")
        + make_outputs("b", [R, W], "m")
        + make_outputs("b", [W, R], "n")
    )
    pooled = mine(records, rollouts, GUARD_TASKS, Pairing())
    assert [pair.record.id for pair in pooled.pairs] == ["a", "b"]
    separate = mine(records, rollouts, GUARD_TASKS, Pairing(pool=False))
    assert [(pair.record.id, pair.chosen.model) for pair in separate.pairs] == [("b", "m")]
    counts = separate.total()
    assert (counts.groups, counts.all_right, counts.all_wrong, counts.mixed, counts.duplicates) == (4, 1, 1, 2, 1)


def test_pooling_needs_one_output_of_two_models() -> None:
    rollouts = make_outputs("a", [R], "m") + make_outputs("a", [W], "n")
    assert len(mine([make_record("a")], rollouts, GUARD_TASKS, Pairing()).pairs) == 1
    with pytest.raises(InputError, match="by any one model: with k = 1 nothing can be mixed"):
        mine([make_record("a")], rollouts, GUARD_TASKS, Pairing(pool=False))
    with pytest.raises(InputError, match="over all models: with k = 1 nothing can be mixed"):
        mine([make_record("a")], rollouts[:1], GUARD_TASKS, Pairing())


def test_unparsable_outputs_count_as_wrong_or_are_dropped() -> None:
    records = [make_record("a"), make_record("b"), make_record("c")]
    rollouts = make_outputs("a", [R, U]) + make_outputs("b", [R, W, U]) + make_outputs("c", [U, U])
    wrong = mine(records, rollouts, GUARD_TASKS, Pairing())
    assert [pair.votes for pair in wrong.pairs] == [(True, False), (True, False, False)]
    assert (wrong.total().all_wrong, wrong.total().unparsed, wrong.total().dropped) == (1, 4, 0)
    dropped = mine(records, rollouts, GUARD_TASKS, Pairing(unparsable="drop"))
    assert [(pair.record.id, pair.votes) for pair in dropped.pairs] == [("b", (True, False))]
    assert (dropped.total().too_few, dropped.total().dropped) == (2, 4)


def test_two_models_with_one_name_are_refused() -> None:
    rollouts = make_outputs("a", [R, W])
    other_model = [replace(rollout, fingerprint="e") for rollout in make_outputs("b", [R, W])]
    for records_and_rollouts in (
        rollouts + other_model,
        other_model + rollouts,
        rollouts + [replace(rollout, record_id="a") for rollout in other_model],
    ):
        with pytest.raises(
            InputError, match="rollouts of two models under the name 'm': fingerprints e and f"
        ) as error:
            mine([make_record("a"), make_record("b")], records_and_rollouts, GUARD_TASKS, Pairing())
        assert "rename one" in (error.value.hint or "")
    # hashes of files may differ between files of one model, but not for outputs of the same record
    files = [
        replace(rollout, fingerprint=f"{FILE_FINGERPRINT}{rollout.record_id}") for rollout in [*rollouts, *other_model]
    ]
    assert mine([make_record("a"), make_record("b")], files, GUARD_TASKS, Pairing()).total().hard == 2
    with pytest.raises(InputError, match="fingerprints f and file:a"):
        mine([make_record("a")], [*rollouts, *files[:2]], GUARD_TASKS, Pairing())


def test_grading_all_labels_or_the_first_mixed_task() -> None:
    record = make_record("a", request="harmful", completion="refusal", response="unharmful")
    rollouts = [
        output_with_verdicts("a", 0, request="harmful", completion="compliance", response="unharmful"),
        output_with_verdicts("a", 1, request="harmful", completion="refusal", response="harmful"),
        output_with_verdicts("a", 2, request="harmful", completion="refusal", response="unharmful"),
        output_with_verdicts("a", 3, request="harmful", completion="compliance", response="unharmful"),
    ]
    (pair,) = mine([record], rollouts, GUARD_TASKS, Pairing()).pairs
    assert (pair.task, pair.votes, pair.chosen.index) == ("all", (False, False, True, False), 2)
    (pair,) = mine([record], rollouts, GUARD_TASKS, Pairing(graded="first-mixed")).pairs
    # The request is always right. The response is graded before the completion; only output 1 has it wrong.
    assert (pair.task, pair.votes, pair.rejected.index) == ("response", (True, False, True, True), 1)


def test_a_task_that_is_always_wrong_is_not_mixed() -> None:
    record = make_record("a", request="harmful", response="unharmful")
    rollouts = [output_with_verdicts("a", index, request="harmful", response="harmful") for index in range(2)]
    mined = mine([record], rollouts, GUARD_TASKS, Pairing(graded="first-mixed"))
    assert (mined.pairs, mined.total().all_wrong) == ([], 1)


def test_rollouts_must_match_the_records() -> None:
    with pytest.raises(InputError, match="rollouts that belong to other records: m answered 'b'"):
        mine([make_record("a")], make_outputs("b", [R, W]), GUARD_TASKS, Pairing())
    with pytest.raises(InputError, match="record 'a': m \\(seed 0\\) gives output 0 twice"):
        mine([make_record("a")], make_outputs("a", [R, W]) * 2, GUARD_TASKS, Pairing())
    with pytest.raises(InputError, match="record id 'a' occurs twice"):
        mine([make_record("a")] * 2, make_outputs("a", [R, W]), GUARD_TASKS, Pairing())


def test_a_record_needs_a_valid_label() -> None:
    with pytest.raises(InputError, match="record a: no label for any task"):
        mine([make_record("a", request=None)], make_outputs("a", [R, W]), GUARD_TASKS, Pairing())
    with pytest.raises(InputError, match="record a: request: 'Harmful' is none of harmful, unharmful"):
        mine([make_record("a", request="Harmful")], make_outputs("a", [R, W]), GUARD_TASKS, Pairing())


@pytest.mark.parametrize(("parser", "hard"), [("final-block", 165), ("released", 166)])
def test_hard_records_of_the_published_models(shared_data: Any, parser: Any, hard: int) -> None:
    records, rollouts = read_rollout_folders([shared_data / "predictions" / name for name in ("1B", "3B")])
    mined = mine(records, rollouts, GUARD_TASKS, Pairing(parser=parser))
    assert len(mined.pairs) == hard
    assert {source: counts.pairs for source, counts in mined.counts.items()} == {
        "AegisSafetyTest": 28,
        "HarmBenchPrompt": 44,
        "HarmBenchResponse": 40 if parser == "final-block" else 41,
        "SimpleSafetyTests": 2,
        "XSTestReponseHarmful": 13,
        "XSTestResponseRefusal": 38,
    }


def test_mining_does_not_import_torch() -> None:
    code = "import sys, guardreasoner.mining; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_output_that_votes_is_not_dropped() -> None:
    record = make_record("a", request="harmful", response="unharmful")
    rollouts = [
        output_with_verdicts("a", 0, request="harmful"),
        output_with_verdicts("a", 1, request="unharmful", response="unharmful"),
    ]
    pairing = Pairing(graded="first-mixed", unparsable="drop")
    mined = mine([record], rollouts, GUARD_TASKS, pairing)
    assert [(pair.chosen.index, pair.rejected.index) for pair in mined.pairs] == [(0, 1)]
    assert (mined.total().unparsed, mined.total().dropped) == (1, 0)
    no_vote = output_with_verdicts("a", 2, response="unharmful")  # the request decides
    assert mine([record], [*rollouts, no_vote], GUARD_TASKS, pairing).total().dropped == 1
