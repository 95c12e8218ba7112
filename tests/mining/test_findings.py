"""What mining found, in numbers."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from guardreasoner.mining import Pairing, mine
from guardreasoner.mining.findings import Findings, ModelAgreement, SamplingCost, TaskOutcomes, Votes, findings
from guardreasoner.sources.rollouts import read_rollout_folders
from guardreasoner.tasks import GUARD_TASKS
from tests.support.scripted import Given, R, U, W, asked, judged, options, outputs, rollouts_of_records


def found(
    words: dict[str, list[str | None]], other: dict[str, list[str | None]] | None = None, **options: Any
) -> Findings:
    """Return the findings on records that one model, or two, answered with these words."""
    rollouts = [o for name, said in words.items() for o in outputs(name, said)]
    rollouts += [o for name, said in (other or {}).items() for o in outputs(name, said, "n")]
    records = [asked(name, "t" if name > "b" else "s") for name in words]
    return findings(mine(records, rollouts, GUARD_TASKS, Pairing(**options)))


def test_outcomes_votes_and_weights_by_hand() -> None:
    words = {"a": [R, R, R], "b": [R, W, U], "c": [W, W, W], "d": [U, U, R]}
    here = found(words)
    assert here.outcomes == (
        TaskOutcomes("s", "request", 2, 1, 1, 0, 0, 1),
        TaskOutcomes("t", "request", 2, 0, 1, 1, 0, 2),
    )
    assert here.votes == (Votes(3, (1, 2, 0, 1)),)
    assert [weight for weight in here.weights if weight[1]] == [(1.0, 2)]  # both have one right output of three
    assert (here.models, here.records, here.agreement, here.cost) == (("m",), 4, (), ())
    # b and d: two outputs are alike in 1 of 3 draws
    assert dict(here.growth) == pytest.approx({2: 2 * 2 / 3, 3: 2})
    dropping = found(words, unparsable="drop")
    assert dropping.votes == (Votes(1, (0, 1)), Votes(2, (0, 1, 0)), Votes(3, (1, 0, 0, 1)))
    assert dropping.outcomes[1] == TaskOutcomes("t", "request", 2, 1, 0, 1, 0, 2)
    # b is mixed if, of three outputs, the two that vote are drawn
    assert dict(dropping.growth) == pytest.approx({2: 1 / 3, 3: 1})


def test_tasks_are_told_apart() -> None:
    record = asked("a", request="harmful", response="unharmful")
    rollouts = [
        judged("a", 0, request="harmful", response="unharmful"),
        judged("a", 1, request="harmful", response="harmful"),
        judged("a", 2, response="harmful"),
    ]
    for graded, expected in (("all", 2 / 3), ("first-mixed", 1)):
        here = findings(mine([record], rollouts, GUARD_TASKS, Pairing(graded=graded)))  # type: ignore[arg-type]
        assert here.outcomes == (
            TaskOutcomes("s", "request", 1, 0, 1, 0, 0, 1),
            TaskOutcomes("s", "response", 1, 0, 1, 0, 0, 0),
        )
        # together only the first output is right; task by task any two of the three differ
        assert dict(here.growth) == pytest.approx({2: expected, 3: 1})


def test_models_are_compared_on_what_both_answered() -> None:
    one = {"a": [R, R, W], "b": [W, W], "c": [R], "d": [R, W], "e": [R]}
    other = {"a": [R], "b": [R, R, W], "c": [R], "d": [W]}
    # majorities right: a both, b the second alone, c both, d neither (half is no majority)
    here = found(one, other)
    # chance: 1/2 · 3/4 + 1/2 · 1/4 = 1/2
    assert here.agreement == (ModelAgreement("m", "n", 4, 0.75, 0.5),)


@given(rollouts_of_records(), options)
def test_with_all_outputs_the_expectation_is_what_was_found(given_rollouts: Given, pairing: Pairing) -> None:
    records, rollouts = given_rollouts
    mined = mine(records, rollouts, GUARD_TASKS, pairing)
    here = findings(mined)
    values = [value for _, value in here.growth]
    assert values[-1] == pytest.approx(mined.total().hard)
    assert values == pytest.approx(sorted(values))
    assert sum(count for _, count in here.weights) == len(mined.pairs)
    assert sum(sum(one.groups) for one in here.votes) <= mined.total().groups
    for row in here.outcomes:
        assert row.groups == row.all_right + row.mixed + row.all_wrong + row.no_vote
    assert here.counts == mined.counts
    assert Findings.from_json(json.loads(json.dumps(here.as_json()))) == here


def test_no_output_is_no_finding() -> None:
    mined = replace(mine([asked("a")], outputs("a", [R, W]), GUARD_TASKS, Pairing()), tallies=[], pairs=[], counts={})
    here = findings(mined, [SamplingCost("GPU", 1.5, 300, 2, 1, 2)])
    assert (here.outcomes, here.votes, here.growth, here.records) == ((), (), (), 0)
    assert Findings.from_json(json.loads(json.dumps(here.as_json()))) == here
    assert (here.cost[0].rate(), here.cost[0].each(3)) == (200.0, None)
    whole = replace(here.cost[0], folders=2)
    assert (whole.each(3), whole.each(0), replace(whole, seconds=0.0).rate()) == (0.5, None, None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "not the findings of mining: models: "),
        ([], "not the findings of mining: "),
        (None, "not the findings of mining: "),
        ({"models": 1}, "not the findings of mining: models: "),
    ],
)
def test_other_json_is_refused_with_the_first_bad_field(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        Findings.from_json(value)
    assert "\n" not in str(caught.value)


def test_the_published_models(shared_data: Any) -> None:
    records, rollouts = read_rollout_folders([shared_data / "predictions" / name for name in ("1B", "3B")])
    here = findings(mine(records, rollouts, GUARD_TASKS, Pairing()))
    assert here.growth == ((1, 165.0),)
    (pair,) = here.agreement
    # with one output each, a record is hard exactly where the two disagree
    assert (pair.records, round(pair.share * pair.records)) == (2195, 2195 - 165)
    assert pair.kappa is not None
    assert 0 < pair.kappa < 1
