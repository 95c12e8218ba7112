"""Statistics of a mining run, checked against values derived by hand."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from guardreasoner.mining import Pairing, mine
from guardreasoner.mining.findings import Findings, ModelAgreement, SamplingCost, TaskOutcomes, VoteHistogram, findings
from guardreasoner.sources.rollouts import read_rollout_folders
from guardreasoner.tasks import GUARD_TASKS
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


def findings_of(
    verdicts_m: dict[str, list[str | None]], verdicts_n: dict[str, list[str | None]] | None = None, **options: Any
) -> Findings:
    """Return the findings for the verdicts of model m, and of model n if given, by record id."""
    rollouts = [o for record_id, verdicts in verdicts_m.items() for o in make_outputs(record_id, verdicts)]
    rollouts += [
        o for record_id, verdicts in (verdicts_n or {}).items() for o in make_outputs(record_id, verdicts, "n")
    ]
    records = [make_record(record_id, "t" if record_id > "b" else "s") for record_id in verdicts_m]
    return findings(mine(records, rollouts, GUARD_TASKS, Pairing(**options)))


def test_outcomes_votes_and_weights_by_hand() -> None:
    verdicts = {"a": [R, R, R], "b": [R, W, U], "c": [W, W, W], "d": [U, U, R]}
    result = findings_of(verdicts)
    assert result.outcomes == (
        TaskOutcomes("s", "request", 2, 1, 1, 0, 0, 1),
        TaskOutcomes("t", "request", 2, 0, 1, 1, 0, 2),
    )
    assert result.votes == (VoteHistogram(3, (1, 2, 0, 1)),)
    # both hard records have one right output of three
    assert [weight for weight in result.weights if weight[1]] == [(1.0, 2)]
    assert (result.models, result.records, result.agreement, result.cost) == (("m",), 4, (), ())
    # b and d: two drawn outputs agree in 1 of 3 draws
    assert dict(result.growth) == pytest.approx({2: 2 * 2 / 3, 3: 2})
    dropping = findings_of(verdicts, unparsable="drop")
    assert dropping.votes == (VoteHistogram(1, (0, 1)), VoteHistogram(2, (0, 1, 0)), VoteHistogram(3, (1, 0, 0, 1)))
    assert dropping.outcomes[1] == TaskOutcomes("t", "request", 2, 1, 0, 1, 0, 2)
    # b is mixed only if both outputs that vote are among the two drawn of three
    assert dict(dropping.growth) == pytest.approx({2: 1 / 3, 3: 1})


def test_outcomes_by_task() -> None:
    record = make_record("a", request="harmful", response="unharmful")
    rollouts = [
        output_with_verdicts("a", 0, request="harmful", response="unharmful"),
        output_with_verdicts("a", 1, request="harmful", response="harmful"),
        output_with_verdicts("a", 2, response="harmful"),
    ]
    for graded, expected in (("all", 2 / 3), ("first-mixed", 1)):
        result = findings(mine([record], rollouts, GUARD_TASKS, Pairing(graded=graded)))  # type: ignore[arg-type]
        assert result.outcomes == (
            TaskOutcomes("s", "request", 1, 0, 1, 0, 0, 1),
            TaskOutcomes("s", "response", 1, 0, 1, 0, 0, 0),
        )
        # "all": only the first output is right; "first-mixed": any two of the three outputs differ on some task
        assert dict(result.growth) == pytest.approx({2: expected, 3: 1})


def test_models_are_compared_on_records_that_both_answered() -> None:
    verdicts_m = {"a": [R, R, W], "b": [W, W], "c": [R], "d": [R, W], "e": [R]}
    verdicts_n = {"a": [R], "b": [R, R, W], "c": [R], "d": [W]}
    # right majorities: a both models, b only n, c both, d neither (one half is no majority)
    result = findings_of(verdicts_m, verdicts_n)
    # expected by chance: 1/2 · 3/4 + 1/2 · 1/4 = 1/2
    assert result.agreement == (ModelAgreement("m", "n", 4, 0.75, 0.5),)


@given(records_with_rollouts(), pairings)
def test_the_expectation_for_all_outputs_is_the_observed_count(
    records_and_rollouts: RecordsAndRollouts, pairing: Pairing
) -> None:
    records, rollouts = records_and_rollouts
    mined = mine(records, rollouts, GUARD_TASKS, pairing)
    result = findings(mined)
    values = [value for _, value in result.growth]
    assert values[-1] == pytest.approx(mined.total().hard)
    assert values == pytest.approx(sorted(values))
    assert sum(count for _, count in result.weights) == len(mined.pairs)
    assert sum(sum(histogram.groups) for histogram in result.votes) <= mined.total().groups
    for row in result.outcomes:
        assert row.groups == row.all_right + row.mixed + row.all_wrong + row.no_vote
    assert result.counts == mined.counts
    assert Findings.from_json(json.loads(json.dumps(result.as_json()))) == result


def test_findings_without_outputs_are_empty() -> None:
    mined = replace(
        mine([make_record("a")], make_outputs("a", [R, W]), GUARD_TASKS, Pairing()),
        record_grades=[],
        pairs=[],
        counts={},
    )
    result = findings(mined, [SamplingCost("GPU", 1.5, 300, 2, 1, 2)])
    assert (result.outcomes, result.votes, result.growth, result.records) == ((), (), (), 0)
    assert Findings.from_json(json.loads(json.dumps(result.as_json()))) == result
    assert (result.cost[0].tokens_per_second(), result.cost[0].seconds_per_pair(3)) == (200.0, None)
    complete = replace(result.cost[0], folders=2)
    assert (complete.seconds_per_pair(3), complete.seconds_per_pair(0)) == (0.5, None)
    assert replace(complete, seconds=0.0).tokens_per_second() is None


def test_json_keys_are_stable() -> None:
    # findings.json of earlier runs must stay readable
    value = findings_of({"a": [R, W]}, {"a": [R]}).as_json()
    assert set(value["votes"][0]) == {"of", "groups"}
    assert set(value["agreement"][0]) == {"one", "other", "records", "share", "kappa"}
    with_cost = replace(findings_of({"a": [R, W]}), cost=(SamplingCost("GPU", 1.5, 300, 2, 1, 2),))
    assert set(with_cost.as_json()["cost"][0]) == {"kind", "seconds", "tokens", "outputs", "folders", "of"}


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


def test_findings_of_the_published_models(shared_data: Any) -> None:
    records, rollouts = read_rollout_folders([shared_data / "predictions" / name for name in ("1B", "3B")])
    result = findings(mine(records, rollouts, GUARD_TASKS, Pairing()))
    assert result.growth == ((1, 165.0),)
    (pair,) = result.agreement
    # with one output per model, a record is hard exactly if the two models disagree
    assert (pair.records, round(pair.share * pair.records)) == (2195, 2195 - 165)
    assert pair.kappa is not None
    assert 0 < pair.kappa < 1
