"""An explanation says what mining did, for every record, and shows data as text."""

from typing import Any

import pytest
from hypothesis import given

from guardreasoner.errors import InputError
from guardreasoner.mining import Pairing, mine
from guardreasoner.mining.explain import Explanation, explain
from guardreasoner.records import Record, Rollout
from guardreasoner.report.explanation_text import explanation_lines
from guardreasoner.tasks import GUARD_TASKS
from tests.support.scripted import Given, R, U, W, asked, judged, options, output, outputs, rollouts_of_records


def explained(name: str, records: list[Record], rollouts: list[Rollout], **pairing: Any) -> Explanation:
    mined = mine(records, rollouts, GUARD_TASKS, Pairing(**pairing))
    return explain(name, mined, records, rollouts, GUARD_TASKS)


def said(name: str, records: list[Record], rollouts: list[Rollout], **pairing: Any) -> str:
    return "\n".join(explanation_lines(explained(name, records, rollouts, **pairing)))


@given(rollouts_of_records(), options)
def test_every_record_is_explained_as_it_was_mined(given_rollouts: Given, pairing: Pairing) -> None:
    records, rollouts = given_rollouts
    mined = mine(records, rollouts, GUARD_TASKS, pairing)
    outcomes = {"all right": 0, "mixed": 0, "all wrong": 0, "too few": 0}
    for record in records:
        found = explain(record.id, mined, records, rollouts, GUARD_TASKS)
        assert list(found.pairs) == [pair for pair in mined.pairs if pair.record.id == record.id]
        assert len(found.outputs) == sum(rollout.record_id == record.id for rollout in rollouts)
        for group in found.groups:
            outcomes[group.outcome] += 1
        hard = [group for group in found.groups if group.task]
        assert bool(hard) == bool(found.pairs)
        for pair in found.pairs:
            assert (hard[0].task, hard[0].excess) == (pair.task, pair.excess_errors)
            assert hard[0].weight == pytest.approx(pair.weight)
            assert [vote for vote in hard[0].ballots[pair.task] if vote is not None] == list(pair.votes)
            assert explain(pair.id, mined, records, rollouts, GUARD_TASKS) == found
        lines = list(explanation_lines(found, verbose=True))
        assert any(line.startswith(("pairs", "no pair")) for line in lines)
    total = mined.total()
    assert list(outcomes.values()) == [total.all_right, total.mixed, total.all_wrong, total.too_few]


def test_the_steps_are_said() -> None:
    records = [asked("a", "embedded/home"), asked("b"), asked("c")]
    rollouts = [*outputs("a", [R, W, U, R]), *outputs("b", [R, W, W, W]), *outputs("c", [R, R, R, W])]
    text = said("a", records, rollouts, gamma=0.2, seed=7)
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


def test_why_there_is_no_pair() -> None:
    records = [asked("a"), asked("b", "t"), asked("c"), asked("d")]
    rollouts = [*outputs("a", [R, R]), *outputs("b", [R, W]), *outputs("d", [R, W])]
    assert said("a", records, rollouts).endswith("2 right, 0 wrong: all right\nno pair  the outputs are not mixed")
    assert "no pair  the record has no output" in said("c", records, rollouts)
    taken_out = said("b", records, rollouts, sources_by_model={"m": ["s"]})
    assert "output 0: request harmful (right) -> not mined" in taken_out
    assert "no pair  none of these models mines its source" in taken_out
    few = said("b", records, [*rollouts, output("b", U, 2)], unparsable="drop")
    assert "request None (no verdict) -> dropped" in few
    assert "1 right, 1 wrong, 1 dropped: mixed" in few
    two = [output("a", U, 2), *outputs("a", [R]), *rollouts[2:]]
    assert "no pair  fewer than two votes" in said("a", records, two, unparsable="drop")


def test_models_that_are_mined_alone() -> None:
    records = [asked("a"), asked("b")]
    rollouts = [*outputs("a", [R, W], "n"), *outputs("a", [R, W, W], "m"), *outputs("b", [R, R, W], "m")]
    text = said("a", records, rollouts, pool=False, rejected="all", cap=1, gamma=0.2)
    assert "votes    m: 1 right, 2 wrong: mixed, so the record is hard" in text
    assert "among the 2 hard records of m in s: minimum -1, maximum 1" in text
    assert "alpha = 1 + 0.2 * (2 * (1 - (-1)) / (1 - (-1)) - 1) = 1.2" in text
    assert "among the 1 hard records of n in s: minimum 0, maximum 0" in text
    assert "all are equally hard: alpha = 1" in text
    assert "2 combinations; cap 1: kept at random, seed 0" in text
    assert "also hard for n; only the first model's pairs (by name) are kept" in text


def test_tasks_that_are_graded_one_by_one() -> None:
    record = asked("a", request="harmful", completion="refusal", response="unharmful")
    rollouts = [
        judged("a", 0, request="harmful", completion="compliance", response="unharmful"),
        judged("a", 1, request="harmful", completion="refusal", response="harmful"),
    ]
    text = said("a", [record], rollouts, graded="first-mixed")
    assert (
        "votes    all models: request 2 right, 0 wrong; response 1 right, 1 wrong; completion 1 right, 1 wrong: "
        "mixed, so the record is hard on response"
    ) in text
    easy = said(
        "a", [record], [rollouts[0], judged("a", 1, request="harmful")], graded="first-mixed", unparsable="drop"
    )
    assert "-> by task" in easy
    assert "request 2 right, 0 wrong; response 1 right, 0 wrong, 1 dropped" in easy


def test_an_unknown_id_comes_with_near_ones() -> None:
    records, rollouts = [asked("train/01"), asked("train/02")], outputs("train/01", [R, W])
    with pytest.raises(InputError, match="no record '01' among the 2 that were mined") as error:
        explained("01", records, rollouts)
    assert error.value.hint == "did you mean train/01?"
    with pytest.raises(InputError) as error:
        explained("trian/02", records, rollouts)
    assert error.value.hint == "did you mean train/02 or train/01?"
    with pytest.raises(InputError) as error:
        explained("?", records, rollouts)
    assert error.value.hint == "ids are like train/01"


def test_texts_are_shortened_and_cannot_steer_a_terminal() -> None:
    evil = "\x1b[2J\x07[bold]\u202e" + "long " * 60
    records = [Record(f"a{evil[:4]}", evil, evil, {"request": "harmful"}, None, evil)]
    rollouts = [output(records[0].id, word, place, evil, evil) for place, word in enumerate([R, W])]
    found = explained(records[0].id, records, rollouts)
    for verbose in (False, True):
        text = "\n".join(explanation_lines(found, verbose, [evil]))
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
        assert "[bold]" in text
    short = list(explanation_lines(found))
    prompt = next(line for line in short if line.startswith("prompt"))
    assert len(prompt) < 130
    assert " … " in prompt
    assert "long " * 60 in "\n".join(explanation_lines(found, verbose=True)).replace("\n", " ") + " "
