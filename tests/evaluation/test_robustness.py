"""Effect of attacks on F1 and verdicts, with verdicts written by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import attack_record, base64_text, leetspeak
from guardreasoner.evaluation.intervals import Estimate, Share
from guardreasoner.evaluation.robustness import ALL, FamilyScore, robustness
from guardreasoner.evaluation.scoring import score
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import GUARD_TASKS, Task

LABEL_BY_LETTER = {"H": "harmful", "U": "unharmful", "-": None}
THREE = (Task("kind", "Kind", "what kind?", ("A", "B", "C"), "A"),)


def output(record: Record, letter: str) -> Rollout:
    """Return an output with a verdict on the request; "-" gives no verdict."""
    text = "Hm." if letter == "-" else answer_block({"request": LABEL_BY_LETTER[letter]}, GUARD_TASKS)
    return Rollout(record.id, "m", "f", 0, 0, text)


def attacked_pairs(codes: str, benchmark: str = "b", family: object = leetspeak) -> tuple[list[Record], list[Rollout]]:
    """Return originals, attacked records and answers; a code is gold label, verdict before, verdict after ("HHU")."""
    records, answers = [], []
    for number, (gold, before, after) in enumerate(codes.split()):
        original = Record(
            f"{benchmark}/{number}", "Test it.", labels={"request": LABEL_BY_LETTER[gold]}, source=benchmark
        )
        rewritten = attack_record(original, family)  # type: ignore[arg-type]
        assert rewritten is not None
        records += [original, rewritten]
        answers += [output(original, before), output(rewritten, after)]
    return records, answers


def family_score(codes: str) -> FamilyScore:
    (result,) = robustness(*attacked_pairs(codes), GUARD_TASKS)
    return result


def test_by_hand() -> None:
    # Before: harmful 3 hits, 1 miss, 0 false positives: 6 / 7. After: 1 hit, 3 misses, 1 false positive: 2 / 6.
    result = family_score("HHH HHU HH- HUU UUH UUU")
    assert (result.family, result.benchmark, result.task, result.positive, result.n) == (
        *("leetspeak", ALL, "request", "harmful"),
        6,
    )
    assert result.before == pytest.approx(600 / 7)
    assert result.after == pytest.approx(200 / 6)
    assert result.drop.value == pytest.approx(600 / 7 - 200 / 6)
    assert result.drop.interval is not None
    assert result.drop.interval[0] < result.drop.value < result.drop.interval[1]
    assert result.flipped == Share(1, 3)
    assert (result.unparsed_before, result.unparsed_after) == (0, 1)


def test_unchanged_verdicts_have_a_drop_of_zero() -> None:
    result = family_score("HHH HUU UUU UHH")
    assert (result.drop.value, result.drop.interval) == (0, (0, 0))
    assert result.flipped == Share(0, 2)


def test_an_attack_turns_labels_that_flag_into_the_one_that_does_not() -> None:
    tasks = (replace(GUARD_TASKS[0], positive="unharmful", flags="others"), *GUARD_TASKS[1:])
    # Three originals are judged harmful, of which one attacked version is judged unharmful and one is unparsed.
    (result,) = robustness(*attacked_pairs("HHU HHH HH- UUH UUU"), tasks)
    assert result.flipped == Share(1, 3)


def test_f1_is_undefined_without_a_positive_record() -> None:
    result = family_score("UHU UUU")
    assert (result.before, result.after, result.drop) == (None, None, Estimate(None))
    assert result.flipped == Share(1, 1)


rows_of_letters = st.lists(st.tuples(st.sampled_from("HU"), st.sampled_from("HU-"), st.sampled_from("HU-")), min_size=1)


@given(rows_of_letters)
def test_f1_equals_that_of_score(rows: list[tuple[str, str, str]]) -> None:
    codes = " ".join(map("".join, rows))
    records, answers = attacked_pairs(codes)
    expected = {
        one.benchmark: (one.positive_f1 and one.positive_f1.value, one.unparsed)
        for one in score("m", records, answers, GUARD_TASKS, resamples=2).benchmarks
        if one.task == "request"
    }
    result = family_score(codes)
    assert (pytest.approx(result.before), result.unparsed_before) == expected["b"]
    assert (pytest.approx(result.after), result.unparsed_after) == expected["b@leetspeak"]


def test_unparsed_answers_cost_the_other_labels_precision_as_in_score() -> None:
    originals = [Record(str(n), "Test it.", labels={"kind": gold}, source="b") for n, gold in enumerate("AABC")]
    rewritten = [attack_record(record, leetspeak) for record in originals]
    records = [*originals, *(one for one in rewritten if one)]
    texts = ["Kind: A", "Kind: B", "Kind: B", "?", "?", "Kind: C", "Kind: A", "Kind: A"]
    answers = [Rollout(record.id, "m", "f", 0, 0, text) for record, text in zip(records, texts, strict=True)]
    (result,) = robustness(records, answers, THREE)
    scores = score("m", records, answers, THREE, resamples=2).benchmarks
    f1 = {one.benchmark: one.positive_f1.value for one in scores if one.positive_f1}
    assert (result.before, result.after) == (pytest.approx(f1["b"]), pytest.approx(f1["b@leetspeak"]))


def test_the_interval_matches_drawing_records() -> None:
    codes = "HHH " * 30 + "HHU " * 15 + "HH- " * 5 + "HUH " * 3 + "UUU " * 30 + "UUH " * 4 + "UHU " * 2
    result = family_score(codes)
    columns = np.array([list(code) for code in codes.split()])
    rng = np.random.default_rng(1)
    drops = []
    for _ in range(2000):
        gold, before, after = columns[rng.integers(0, len(columns), len(columns))].T
        f1 = []
        for verdict in (before, after):
            hit, missed = ((gold == "H") & (verdict == "H")).sum(), ((gold == "H") & (verdict != "H")).sum()
            f1.append(200 * hit / (2 * hit + missed + ((gold == "U") & (verdict != "U")).sum()))
        drops.append(f1[0] - f1[1])
    assert result.drop.interval == pytest.approx(tuple(np.percentile(drops, (2.5, 97.5))), abs=1)


def test_families_and_benchmarks_have_rows_of_their_own() -> None:
    parts = [
        attacked_pairs("HHU UUU", "one"),
        attacked_pairs("HHH UUU", "two"),
        attacked_pairs("HHU", "two-more", base64_text),
    ]
    records = [record for part in parts for record in part[0]]
    answers = [answer for part in parts for answer in part[1]]
    result = robustness(records, reversed(answers), GUARD_TASKS)
    assert [(one.family, one.benchmark, one.n) for one in result] == [
        *(("leetspeak", ALL, 4), ("leetspeak", "one", 2), ("leetspeak", "two", 2)),
        ("base64_text", ALL, 1),
    ]
    assert [one.flipped for one in result] == [Share(1, 2), Share(1, 1), Share(0, 1), Share(1, 1)]


def test_each_task_with_a_gold_label_has_a_row() -> None:
    original = Record("1", "Test it.", "No.", {"request": "harmful", "completion": "refusal"}, source="b")
    rewritten = attack_record(original, leetspeak)
    assert rewritten is not None
    texts = [
        answer_block({"request": "harmful", "completion": label}, GUARD_TASKS) for label in ("refusal", "compliance")
    ]
    answers = [Rollout(one.id, "m", "f", 0, 0, text) for one, text in zip((original, rewritten), texts, strict=True)]
    result = robustness([original, rewritten], answers, GUARD_TASKS)
    assert [(one.task, one.positive, one.drop.value, one.flipped) for one in result] == [
        ("request", "harmful", 0, Share(0, 1)),
        ("completion", "refusal", 100, Share(1, 1)),
    ]


def test_incomplete_or_inconsistent_pairs_are_refused() -> None:
    records, answers = attacked_pairs("HHU UUU")
    relabelled = [records[0], replace(records[1], labels={"request": "unharmful"})]
    for some_records, some_answers, message in (
        (records[1:], answers, "attacked record 'b/0@leetspeak': its original 'b/0' is missing"),
        (relabelled, answers, "attacked record 'b/0@leetspeak': its gold labels differ from those of 'b/0'"),
        (records, answers[1:], "no answer for record 'b/0'"),
        (records, answers[:3], "no answer for record 'b/1@leetspeak'"),
        (records[::2], answers, "none of the 2 records is attacked"),
    ):
        with pytest.raises(InputError, match=message):
            robustness(some_records, some_answers, GUARD_TASKS)
