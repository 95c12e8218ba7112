"""What attacks change, on verdicts written by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import attacked, base64_text, leetspeak
from guardreasoner.evaluation.robustness import ALL, FamilyScore, Share, robustness
from guardreasoner.evaluation.scoring import score
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import GUARD_TASKS, Task

WORDS = {"H": "harmful", "U": "unharmful", "-": None}
THREE = (Task("kind", "Kind", "what kind?", ("A", "B", "C"), "A"),)


def said(record: Record, letter: str) -> Rollout:
    """Return an output that judges the request; "-" gives no verdict."""
    text = "Hm." if letter == "-" else answer_block({"request": WORDS[letter]}, GUARD_TASKS)
    return Rollout(record.id, "m", "f", 0, 0, text)


def judged(words: str, benchmark: str = "b", family: object = leetspeak) -> tuple[list[Record], list[Rollout]]:
    """Return records, attacked ones and answers; a word is gold, verdict before, verdict after: "HHU"."""
    records, answers = [], []
    for number, (gold, before, after) in enumerate(words.split()):
        original = Record(f"{benchmark}/{number}", "Test it.", labels={"request": WORDS[gold]}, source=benchmark)
        attack = attacked(original, family)  # type: ignore[arg-type]
        assert attack is not None
        records += [original, attack]
        answers += [said(original, before), said(attack, after)]
    return records, answers


def only(words: str) -> FamilyScore:
    (found,) = robustness(*judged(words), GUARD_TASKS)
    return found


def test_by_hand() -> None:
    # Before: harmful 3 hits, 1 missed, 0 wrong claims: 6 / 7. After: 1 hit, 3 missed, 1 wrong claim: 2 / 6.
    found = only("HHH HHU HH- HUU UUH UUU")
    assert (found.family, found.benchmark, found.task, found.positive, found.n) == (
        *("leetspeak", ALL, "request", "harmful"),
        6,
    )
    assert found.before == pytest.approx(600 / 7)
    assert found.after == pytest.approx(200 / 6)
    assert found.drop == pytest.approx(600 / 7 - 200 / 6)
    assert found.drop_interval is not None
    assert found.drop_interval[0] < found.drop < found.drop_interval[1]
    assert found.turned == Share(1, 3)
    assert (found.unparsed_before, found.unparsed_after) == (0, 1)


def test_nothing_changes_without_a_doubt() -> None:
    found = only("HHH HUU UUU UHH")
    assert found.drop == 0
    assert found.drop_interval == (0, 0)
    assert found.turned == Share(0, 2)


def test_records_without_the_positive_label_have_no_f1() -> None:
    found = only("UHU UUU")
    assert (found.before, found.after, found.drop, found.drop_interval) == (None, None, None, None)
    assert found.turned == Share(1, 1)


words = st.lists(st.tuples(st.sampled_from("HU"), st.sampled_from("HU-"), st.sampled_from("HU-")), min_size=1)


@given(words)
def test_f1_is_that_of_score(rows: list[tuple[str, str, str]]) -> None:
    text = " ".join(map("".join, rows))
    records, answers = judged(text)
    expected = {
        one.benchmark: (one.positive_f1 and one.positive_f1.value, one.unparsed)
        for one in score("m", records, answers, GUARD_TASKS, resamples=2).benchmarks
        if one.task == "request"
    }
    found = only(text)
    assert (pytest.approx(found.before), found.unparsed_before) == expected["b"]
    assert (pytest.approx(found.after), found.unparsed_after) == expected["b@leetspeak"]


def test_an_unparsable_answer_costs_other_labels_as_in_score() -> None:
    original = [Record(str(n), "Test it.", labels={"kind": gold}, source="b") for n, gold in enumerate("AABC")]
    attacks = [attacked(record, leetspeak) for record in original]
    records = [*original, *(one for one in attacks if one)]
    texts = ["Kind: A", "Kind: B", "Kind: B", "?", "?", "Kind: C", "Kind: A", "Kind: A"]
    answers = [Rollout(record.id, "m", "f", 0, 0, text) for record, text in zip(records, texts, strict=True)]
    (found,) = robustness(records, answers, THREE)
    scores = score("m", records, answers, THREE, resamples=2).benchmarks
    by_score = {one.benchmark: one.positive_f1.value for one in scores if one.positive_f1}
    assert (found.before, found.after) == (pytest.approx(by_score["b"]), pytest.approx(by_score["b@leetspeak"]))


def test_the_interval_is_that_of_drawing_records() -> None:
    rows = "HHH " * 30 + "HHU " * 15 + "HH- " * 5 + "HUH " * 3 + "UUU " * 30 + "UUH " * 4 + "UHU " * 2
    found = only(rows)
    columns = np.array([list(row) for row in rows.split()])
    rng = np.random.default_rng(1)
    drops = []
    for _ in range(2000):
        gold, before, after = columns[rng.integers(0, len(columns), len(columns))].T
        values = []
        for verdict in (before, after):
            hit, missed = ((gold == "H") & (verdict == "H")).sum(), ((gold == "H") & (verdict != "H")).sum()
            values.append(200 * hit / (2 * hit + missed + ((gold == "U") & (verdict != "U")).sum()))
        drops.append(values[0] - values[1])
    assert found.drop_interval == pytest.approx(tuple(np.percentile(drops, (2.5, 97.5))), abs=1)


def test_wilsons_interval() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for count, total, low, high in (
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0, 16.11),
        (1, 29, 0.61, 17.18),
    ):
        assert Share(count, total).interval == pytest.approx((low, high), abs=0.005)
    assert (Share(0, 0).percent, Share(0, 0).interval) == (None, None)
    assert Share(5, 5).percent == 100


def test_families_and_benchmarks_are_told_apart() -> None:
    parts = [judged("HHU UUU", "one"), judged("HHH UUU", "two"), judged("HHU", "two-more", base64_text)]
    records = [record for part in parts for record in part[0]]
    answers = [answer for part in parts for answer in part[1]]
    found = robustness(records, reversed(answers), GUARD_TASKS)
    assert [(one.family, one.benchmark, one.n) for one in found] == [
        *(("leetspeak", ALL, 4), ("leetspeak", "one", 2), ("leetspeak", "two", 2)),
        ("base64_text", ALL, 1),
    ]
    assert [one.turned for one in found] == [Share(1, 2), Share(1, 1), Share(0, 1), Share(1, 1)]


def test_each_task_with_a_gold_label_has_a_row() -> None:
    original = Record("1", "Test it.", "No.", {"request": "harmful", "completion": "refusal"}, source="b")
    attack = attacked(original, leetspeak)
    assert attack is not None
    texts = [
        answer_block({"request": "harmful", "completion": word}, GUARD_TASKS) for word in ("refusal", "compliance")
    ]
    answers = [Rollout(one.id, "m", "f", 0, 0, text) for one, text in zip((original, attack), texts, strict=True)]
    found = robustness([original, attack], answers, GUARD_TASKS)
    assert [(one.task, one.positive, one.drop, one.turned) for one in found] == [
        ("request", "harmful", 0, Share(0, 1)),
        ("completion", "refusal", 100, Share(1, 1)),
    ]


def test_what_does_not_belong_together_is_refused() -> None:
    records, answers = judged("HHU UUU")
    relabelled = [records[0], replace(records[1], labels={"request": "unharmful"})]
    for some, of, what in (
        (records[1:], answers, "record 'b/0@leetspeak' is attacked, and its original 'b/0' is not here"),
        (relabelled, answers, "'b/0@leetspeak' has other gold labels than its original 'b/0'"),
        (records, answers[1:], "no answer for record 'b/0'"),
        (records, answers[:3], "no answer for record 'b/1@leetspeak'"),
        (records[::2], answers, "none of 2 records is attacked"),
    ):
        with pytest.raises(InputError, match=what):
            robustness(some, of, GUARD_TASKS)
