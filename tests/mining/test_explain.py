"""Explanations agree with the mining result, and show record texts safely."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from guardreasoner.errors import InputError
from guardreasoner.mining import Pairing, mine
from guardreasoner.mining.explain import Explanation, explain
from guardreasoner.records import Message, Record, Rollout, ToolCall
from guardreasoner.report.explanation_text import explanation_lines
from guardreasoner.tasks import GUARD_TASKS
from tests.support.scripted import (
    R,
    RecordsAndRollouts,
    U,
    W,
    make_output,
    make_outputs,
    make_record,
    output_with_verdicts,
    pairings,
    records_with_rollouts,
)


def explain_record(record_id: str, records: list[Record], rollouts: list[Rollout], **pairing: Any) -> Explanation:
    mined = mine(records, rollouts, GUARD_TASKS, Pairing(**pairing))
    return explain(record_id, mined, records, rollouts, GUARD_TASKS)


def explanation_text(record_id: str, records: list[Record], rollouts: list[Rollout], **pairing: Any) -> str:
    return "\n".join(explanation_lines(explain_record(record_id, records, rollouts, **pairing)))


@given(records_with_rollouts(), pairings)
def test_explanations_agree_with_the_mining_result(records_and_rollouts: RecordsAndRollouts, pairing: Pairing) -> None:
    records, rollouts = records_and_rollouts
    mined = mine(records, rollouts, GUARD_TASKS, pairing)
    outcomes = {"all right": 0, "mixed": 0, "all wrong": 0, "too few": 0}
    for record in records:
        explanation = explain(record.id, mined, records, rollouts, GUARD_TASKS)
        assert list(explanation.pairs) == [pair for pair in mined.pairs if pair.record.id == record.id]
        assert len(explanation.outputs) == sum(rollout.record_id == record.id for rollout in rollouts)
        for group in explanation.groups:
            outcomes[group.outcome] += 1
        hard = [group for group in explanation.groups if group.task]
        assert bool(hard) == bool(explanation.pairs)
        for pair in explanation.pairs:
            assert (hard[0].task, hard[0].excess_errors) == (pair.task, pair.excess_errors)
            assert hard[0].weight == pytest.approx(pair.weight)
            assert [vote for vote in hard[0].votes_by_question[pair.task] if vote is not None] == list(pair.votes)
            assert explain(pair.id, mined, records, rollouts, GUARD_TASKS) == explanation
        lines = list(explanation_lines(explanation, verbose=True))
        assert any(line.startswith(("pairs", "no pair")) for line in lines)
    total = mined.total()
    assert list(outcomes.values()) == [total.all_right, total.mixed, total.all_wrong, total.too_few]


def test_each_step_is_listed() -> None:
    records = [make_record("a", "embedded/home"), make_record("b"), make_record("c")]
    rollouts = [*make_outputs("a", [R, W, U, R]), *make_outputs("b", [R, W, W, W]), *make_outputs("c", [R, R, R, W])]
    text = explanation_text("a", records, rollouts, gamma=0.2, seed=7)
    for line in (
        "record   a of source embedded/home",
        "gold     request: harmful",
        "outputs  4; a verdict is read from the answer block that ends it",
        "  m, fingerprint f, seed 0, output 0: request harmful (right) -> right",
        "  m, fingerprint f, seed 0, output 1: request unharmful (wrong) -> wrong",
        "  m, fingerprint f, seed 0, output 2: request None (no verdict) -> wrong",
        "votes    all models: 2 right, 2 wrong: mixed, so the record is hard",
        "weight   excess errors: 2 wrong - 2 right = 0",
        "         among the 3 hard records of all models and sources: minimum -2, maximum 2",
        "         alpha = 1 + 0.2 * (2 * (0 - (-2)) / (2 - (-2)) - 1) = 1",
        "pairs    1; chosen from right outputs: at random, seed 7; rejected from wrong ones: at random, seed 7",
        "  a, weight 1",
    ):
        assert line in text.splitlines(), line


def test_gold_is_named_as_the_chosen_text() -> None:
    records = [replace(make_record("a"), reasoning="It is so.")]
    text = explanation_text("a", records, make_outputs("a", [R, W]), chosen="gold")
    rejected = "rejected from wrong ones: at random, seed 0"
    assert f"pairs    1; chosen: the record's own reasoning and labels; {rejected}" in text.splitlines()


def test_the_reason_for_no_pair_is_given() -> None:
    records = [make_record("a"), make_record("b", "t"), make_record("c"), make_record("d")]
    rollouts = [*make_outputs("a", [R, R]), *make_outputs("b", [R, W]), *make_outputs("d", [R, W])]
    assert explanation_text("a", records, rollouts).endswith(
        "2 right, 0 wrong: all right\nno pair  the outputs are not mixed"
    )
    assert "no pair  the record has no output" in explanation_text("c", records, rollouts)
    excluded = explanation_text("b", records, rollouts, sources_by_model={"m": ["s"]})
    assert "output 0: request harmful (right) -> not mined" in excluded
    assert "no pair  none of these models mines its source" in excluded
    with_dropped = explanation_text("b", records, [*rollouts, make_output("b", U, 2)], unparsable="drop")
    assert "request None (no verdict) -> dropped" in with_dropped
    assert "1 right, 1 wrong, 1 dropped: mixed" in with_dropped
    too_few = [make_output("a", U, 2), *make_outputs("a", [R]), *rollouts[2:]]
    assert "no pair  fewer than two votes" in explanation_text("a", records, too_few, unparsable="drop")


def test_models_mined_separately() -> None:
    records = [make_record("a"), make_record("b")]
    rollouts = [*make_outputs("a", [R, W], "n"), *make_outputs("a", [R, W, W], "m"), *make_outputs("b", [R, R, W], "m")]
    text = explanation_text("a", records, rollouts, pool=False, rejected="all", cap=1, gamma=0.2)
    assert "votes    m: 1 right, 2 wrong: mixed, so the record is hard" in text
    assert "among the 2 hard records of m in s: minimum -1, maximum 1" in text
    assert "alpha = 1 + 0.2 * (2 * (1 - (-1)) / (1 - (-1)) - 1) = 1.2" in text
    assert "among the 1 hard records of n in s: minimum 0, maximum 0" in text
    assert "all are equally hard: alpha = 1" in text
    assert "2 combinations; cap 1: kept at random, seed 0" in text
    assert "also hard for n; only the first model's pairs (by name) are kept" in text


def test_tasks_graded_one_by_one() -> None:
    record = make_record("a", request="harmful", completion="refusal", response="unharmful")
    rollouts = [
        output_with_verdicts("a", 0, request="harmful", completion="compliance", response="unharmful"),
        output_with_verdicts("a", 1, request="harmful", completion="refusal", response="harmful"),
    ]
    text = explanation_text("a", [record], rollouts, graded="first-mixed")
    assert (
        "votes    all models: request 2 right, 0 wrong; response 1 right, 1 wrong; completion 1 right, 1 wrong: "
        "mixed, so the record is hard on response"
    ) in text
    not_mixed = explanation_text(
        "a",
        [record],
        [rollouts[0], output_with_verdicts("a", 1, request="harmful")],
        graded="first-mixed",
        unparsable="drop",
    )
    assert "-> by task" in not_mixed
    assert "request 2 right, 0 wrong; response 1 right, 0 wrong, 1 dropped" in not_mixed


def test_an_unknown_id_suggests_similar_ids() -> None:
    records, rollouts = [make_record("train/01"), make_record("train/02")], make_outputs("train/01", [R, W])
    with pytest.raises(InputError, match="no record '01' among the 2 that were mined") as error:
        explain_record("01", records, rollouts)
    assert error.value.hint == "did you mean train/01?"
    with pytest.raises(InputError) as error:
        explain_record("trian/02", records, rollouts)
    assert error.value.hint == "did you mean train/02 or train/01?"
    with pytest.raises(InputError) as error:
        explain_record("?", records, rollouts)
    assert error.value.hint == "ids are like train/01"


def test_texts_are_shortened_and_control_characters_are_replaced() -> None:
    hostile = "\x1b[2J\x07[bold]\u202e" + "long " * 60
    records = [Record(f"a{hostile[:4]}", hostile, hostile, {"request": "harmful"}, None, hostile)]
    rollouts = [make_output(records[0].id, verdict, index, hostile, hostile) for index, verdict in enumerate([R, W])]
    explanation = explain_record(records[0].id, records, rollouts)
    for verbose in (False, True):
        text = "\n".join(explanation_lines(explanation, verbose, [hostile]))
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
        assert "[bold]" in text
    short = list(explanation_lines(explanation))
    prompt = next(line for line in short if line.startswith("prompt"))
    assert len(prompt) < 130
    assert " … " in prompt
    assert "long " * 60 in "\n".join(explanation_lines(explanation, verbose=True)).replace("\n", " ") + " "


def test_all_turns_and_the_policy_are_listed() -> None:
    turns = [Message("user", "How?"), Message("assistant", "", (ToolCall("tide", "{}"),)), Message("tool", "3\nm")]
    record = replace(make_record("r"), messages=turns, policy="Be good.")
    text = explanation_text("r", [record], make_outputs("r", [R, W]))
    assert "policy   Be good.\nuser     How?\ntool call tide {}\ntool     3 m\ngold" in text
