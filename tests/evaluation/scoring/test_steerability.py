"""Steerability: pairs by hand, unparsed answers, intervals over conversations, and where it is shown."""

import pytest

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.scoring import ModelScore, score
from guardreasoner.evaluation.scoring.labels import Mode
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.report.score_tables import model_as_json, score_notes, score_tables
from guardreasoner.tasks import GUARD_TASKS, POLICY_TASK

LABELS = {"v": "violates", "c": "complies"}


def scored(*conversations: str, mode: Mode = "strict", resamples: int = 0, policy: str | None = "Rule.") -> ModelScore:
    """Score conversations written as gold label and verdict under each policy, "vv cv"; "-" is unparsed."""
    records, answers = [], []
    for number, codes in enumerate(conversations):
        for index, code in enumerate(codes.split()):
            gold, verdict = code[0], code[1]
            name = f"{number}@{index}"
            text = "…" if verdict == "-" else answer_block({"policy": LABELS[verdict]}, [POLICY_TASK])
            own = None if policy is None else f"{policy} {index}"
            labels = {"policy": LABELS[gold]}
            records.append(Record(name, f"Hello {number}", "Hi.", labels, source="b", policy=own))
            answers.append(Rollout(name, "m", "f", 0, 0, text))
    return score("m", records, answers, [POLICY_TASK], mode, resamples=resamples)


def shares(*conversations: str, mode: Mode = "strict") -> tuple[int, int, float | None, float | None]:
    (row,) = scored(*conversations, mode=mode).steerability
    return row.conversations, row.pairs, row.both_right.value, row.changed.value


def test_a_pair_is_right_if_both_verdicts_are() -> None:
    assert shares("vv cc", "vv cv", "vc cc", "vc cv") == (4, 4, 25, 50)


def test_a_guard_that_ignores_the_policy_has_no_pair_right() -> None:
    assert shares("vv cv", "cc vc") == (2, 2, 0, 0)


def test_pairs_of_more_than_two_policies_are_counted_together() -> None:
    # Two violating and two complying policies: four pairs, of which 2 x 1 are right and 2 x 1 differ.
    assert shares("vv vv cc cv") == (1, 4, 50, 50)


def test_a_conversation_whose_label_stays_has_no_pair() -> None:
    assert shares("vv vv", "vv cc") == (1, 1, 100, 100)
    assert scored("vv vv", "cc").steerability == ()


def test_an_unparsed_answer_is_never_right() -> None:
    assert shares("vv c-", "vv cc") == (2, 2, 50, 50)
    assert shares("vv c-", "vv cc", mode="drop") == (1, 1, 100, 100)


def test_only_records_with_a_policy_and_tasks_about_it_count() -> None:
    assert scored("vv cc", policy=None).steerability == ()
    records = [
        Record(str(n), "A", labels={"request": label}, policy=str(n))
        for n, label in enumerate(("harmful", "unharmful"))
    ]
    answers = [Rollout(record.id, "m", "f", 0, 0, answer_block(record.labels, GUARD_TASKS)) for record in records]
    assert score("m", records, answers, GUARD_TASKS[:1], resamples=0).steerability == ()


def test_the_interval_draws_conversations() -> None:
    (row,) = scored(*["vv cc"] * 30, *["vv cv"] * 10, resamples=500).steerability
    assert row.both_right.value == 75
    low, high = row.both_right.interval or (0, 0)
    assert 55 < low < 70 < 80 < high < 92
    (one,) = scored("vv vv cc cv", resamples=50).steerability
    assert one.both_right == Estimate(50, 50, 50)


def test_it_is_shown_in_tables_notes_and_json() -> None:
    model = scored("vv cc", "vv cv")
    *_, table = score_tables({"strict": [model]}, [POLICY_TASK])
    assert [cell.text for cell in table.rows[0]] == ["m", "b", "policy", "2", "2", "50.00", "50.00"]
    assert any(note.startswith("Steerability:") for note in score_notes({"strict": [model]}, 0))
    assert model_as_json(model)["steerability"]["b"]["policy"]["both_right"] == pytest.approx(50)
    assert "steerability" not in model_as_json(scored("vv", "cc"))
