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
from tests.support.scripted import Given, R, U, W, asked, judged, options, outputs, rollouts_of_records


@given(rollouts_of_records(), options, st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_changes_nothing(given_rollouts: Given, pairing: Pairing, rng: random.Random) -> None:
    records, rollouts = given_rollouts
    mined = mine(records, rollouts, GUARD_TASKS, pairing)
    assert mine(records, rng.sample(rollouts, len(rollouts)), GUARD_TASKS, pairing) == mined
    shuffled = mine(rng.sample(records, len(records)), rollouts, GUARD_TASKS, pairing)
    assert (
        sorted(shuffled.pairs, key=lambda pair: int(pair.record.id)) == mined.pairs
    )  # a record's own keep their order
    assert shuffled.counts == mined.counts


@given(rollouts_of_records(), options)
@settings(max_examples=200)
def test_pairs_are_what_they_claim(given_rollouts: Given, pairing: Pairing) -> None:
    records, rollouts = given_rollouts
    mined = mine(records, rollouts, GUARD_TASKS, pairing)
    assert len({pair.id for pair in mined.pairs}) == len(mined.pairs)
    several = Counter(pair.record.id for pair in mined.pairs)
    assert all(count <= pairing.cap for count in several.values())
    if "all" not in (pairing.chosen, pairing.rejected):
        assert set(several.values()) <= {1}
    for pair in mined.pairs:
        assert (pair.id == pair.record.id) == (several[pair.record.id] == 1)
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
    assert (total.pairs, total.outputs, total.hard) == (len(mined.pairs), len(rollouts), len(several))
    assert sum(len(tally.grades) for tally in mined.tallies) == len(rollouts)


@given(st.integers(1, 4), st.floats(0, 0.99))
def test_equally_hard_records_weigh_one(count: int, gamma: float) -> None:
    records = [asked(str(number)) for number in range(count)]
    rollouts = [rollout for record in records for rollout in outputs(record.id, [R, W, W])]
    assert [pair.weight for pair in mine(records, rollouts, GUARD_TASKS, Pairing(gamma=gamma)).pairs] == [1.0] * count


@given(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_weights_of_four_outputs_of_one_model_have_three_values(wrong: list[int], rng: random.Random) -> None:
    wrong = [*wrong, 1, 2, 3]  # excess errors of −2, 0 and 2 all occur
    rng.shuffle(wrong)
    records = [asked(str(number)) for number in range(len(wrong))]
    rollouts = [
        o for record, n in zip(records, wrong, strict=True) for o in outputs(record.id, [R] * (4 - n) + [W] * n)
    ]
    for pool in (True, False):
        pairs = mine(records, rollouts, GUARD_TASKS, Pairing(pool=pool, gamma=0.2)).pairs
        assert [pair.weight for pair in pairs] == pytest.approx([{1: 0.8, 2: 1.0, 3: 1.2}[n] for n in wrong])


def test_weights_of_four_outputs_of_one_model() -> None:
    votes = {"a": [R, W, W, W], "b": [R, R, W, W], "c": [R, R, R, W]}
    rollouts = [rollout for name, words in votes.items() for rollout in outputs(name, words)]
    pairs = mine([asked(name) for name in votes], rollouts, GUARD_TASKS, Pairing(pool=False, gamma=0.2)).pairs
    assert [pair.excess_errors for pair in pairs] == [2, 0, -2]
    assert [pair.weight for pair in pairs] == pytest.approx([1.2, 1.0, 0.8])


def test_pooled_weights_span_all_records_and_single_ones_a_model_and_source() -> None:
    records = [asked("a", "s"), asked("b", "s"), asked("c", "t"), asked("d", "t")]
    votes = {"a": [R, W, W, W], "b": [R, R, W, W], "c": [R, R, W, W], "d": [R, R, R, W]}
    rollouts = [rollout for name, words in votes.items() for rollout in outputs(name, words)]

    def weights(pool: bool) -> list[float]:
        return [pair.weight for pair in mine(records, rollouts, GUARD_TASKS, Pairing(pool=pool, gamma=0.5)).pairs]

    assert weights(pool=True) == pytest.approx([1.5, 1.0, 1.0, 0.5])
    assert weights(pool=False) == pytest.approx([1.5, 0.5, 1.5, 0.5])


def test_pooling_finds_what_no_model_finds_alone() -> None:
    records = [asked("a"), asked("b")]
    rollouts = (
        outputs("a", [R, R], "m") + outputs("a", [W, W], "n") + outputs("b", [R, W], "m") + outputs("b", [W, R], "n")
    )
    pooled = mine(records, rollouts, GUARD_TASKS, Pairing())
    assert [pair.record.id for pair in pooled.pairs] == ["a", "b"]
    alone = mine(records, rollouts, GUARD_TASKS, Pairing(pool=False))
    assert [(pair.record.id, pair.chosen.model) for pair in alone.pairs] == [("b", "m")]
    counts = alone.total()
    assert (counts.groups, counts.all_right, counts.all_wrong, counts.mixed, counts.duplicates) == (4, 1, 1, 2, 1)


def test_one_output_of_each_of_two_models_is_enough_when_pooled() -> None:
    rollouts = outputs("a", [R], "m") + outputs("a", [W], "n")
    assert len(mine([asked("a")], rollouts, GUARD_TASKS, Pairing()).pairs) == 1
    with pytest.raises(InputError, match="by any one model: with k = 1 nothing can be mixed"):
        mine([asked("a")], rollouts, GUARD_TASKS, Pairing(pool=False))
    with pytest.raises(InputError, match="over all models: with k = 1 nothing can be mixed"):
        mine([asked("a")], rollouts[:1], GUARD_TASKS, Pairing())


def test_unparsable_outputs_are_wrong_or_no_vote() -> None:
    records = [asked("a"), asked("b"), asked("c")]
    rollouts = outputs("a", [R, U]) + outputs("b", [R, W, U]) + outputs("c", [U, U])
    wrong = mine(records, rollouts, GUARD_TASKS, Pairing())
    assert [pair.votes for pair in wrong.pairs] == [(True, False), (True, False, False)]
    assert (wrong.total().all_wrong, wrong.total().unparsed, wrong.total().dropped) == (1, 4, 0)
    dropped = mine(records, rollouts, GUARD_TASKS, Pairing(unparsable="drop"))
    assert [(pair.record.id, pair.votes) for pair in dropped.pairs] == [("b", (True, False))]
    assert (dropped.total().too_few, dropped.total().dropped) == (2, 4)


def test_two_models_of_one_name_are_refused() -> None:
    rollouts = outputs("a", [R, W])
    later = [replace(one, fingerprint="e") for one in outputs("b", [R, W])]
    for given_rollouts in (
        rollouts + later,
        later + rollouts,
        rollouts + [replace(one, record_id="a") for one in later],
    ):
        with pytest.raises(
            InputError, match="rollouts of two models under the name 'm': fingerprints e and f"
        ) as error:
            mine([asked("a"), asked("b")], given_rollouts, GUARD_TASKS, Pairing())
        assert "rename one" in (error.value.hint or "")
    # where only a hash of the file is known, outputs on other records may be the same model's, but not on the same
    files = [replace(one, fingerprint=f"{FILE_FINGERPRINT}{one.record_id}") for one in [*rollouts, *later]]
    assert mine([asked("a"), asked("b")], files, GUARD_TASKS, Pairing()).total().hard == 2
    with pytest.raises(InputError, match="fingerprints f and file:a"):
        mine([asked("a")], [*rollouts, *files[:2]], GUARD_TASKS, Pairing())


def test_all_labels_or_the_first_mixed_task() -> None:
    record = asked("a", request="harmful", completion="refusal", response="unharmful")
    rollouts = [
        judged("a", 0, request="harmful", completion="compliance", response="unharmful"),
        judged("a", 1, request="harmful", completion="refusal", response="harmful"),
        judged("a", 2, request="harmful", completion="refusal", response="unharmful"),
        judged("a", 3, request="harmful", completion="compliance", response="unharmful"),
    ]
    (pair,) = mine([record], rollouts, GUARD_TASKS, Pairing()).pairs
    assert (pair.task, pair.votes, pair.chosen.index) == ("all", (False, False, True, False), 2)
    (pair,) = mine([record], rollouts, GUARD_TASKS, Pairing(graded="first-mixed")).pairs
    # The request is always right; the response comes before the completion, and only output 1 gets it wrong.
    assert (pair.task, pair.votes, pair.rejected.index) == ("response", (True, False, True, True), 1)


def test_a_task_that_is_always_wrong_is_not_mixed() -> None:
    record = asked("a", request="harmful", response="unharmful")
    rollouts = [judged("a", index, request="harmful", response="harmful") for index in range(2)]
    mined = mine([record], rollouts, GUARD_TASKS, Pairing(graded="first-mixed"))
    assert (mined.pairs, mined.total().all_wrong) == ([], 1)


def test_rollouts_and_records_must_belong_together() -> None:
    with pytest.raises(InputError, match="rollouts that belong to other records: m answered 'b'"):
        mine([asked("a")], outputs("b", [R, W]), GUARD_TASKS, Pairing())
    with pytest.raises(InputError, match="record 'a': m \\(seed 0\\) gives output 0 twice"):
        mine([asked("a")], outputs("a", [R, W]) * 2, GUARD_TASKS, Pairing())
    with pytest.raises(InputError, match="record id 'a' occurs twice"):
        mine([asked("a")] * 2, outputs("a", [R, W]), GUARD_TASKS, Pairing())


def test_a_record_needs_a_known_label() -> None:
    with pytest.raises(InputError, match="record a: no label for any task"):
        mine([asked("a", request=None)], outputs("a", [R, W]), GUARD_TASKS, Pairing())
    with pytest.raises(InputError, match="record a: request: 'Harmful' is none of harmful, unharmful"):
        mine([asked("a", request="Harmful")], outputs("a", [R, W]), GUARD_TASKS, Pairing())


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


def test_options_and_grading_need_no_torch() -> None:
    code = "import sys, guardreasoner.mining; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
