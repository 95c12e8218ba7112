from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.mining import PRESETS, Pairing, mine
from guardreasoner.tasks import GUARD_TASKS
from tests.support.scripted import Given, R, W, asked, options, outputs, rollouts_of_records


@given(rollouts_of_records(), options, st.data())
def test_outputs_that_are_not_mined_might_as_well_not_be_there(
    given_rollouts: Given, pairing: Pairing, data: st.DataObject
) -> None:
    records, rollouts = given_rollouts
    models, sources = {r.model for r in rollouts}, {record.id: record.source for record in records}
    some = st.lists(st.sampled_from(sorted(set(sources.values()))), max_size=2)
    sources_by_model = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(models), some)))
    taken = [
        r for r in rollouts if r.model not in sources_by_model or sources[r.record_id] in sources_by_model[r.model]
    ]
    k = Counter((r.record_id, "" if pairing.pool else r.model) for r in taken)
    assume(k and max(k.values()) > 1)
    mined = mine(records, rollouts, GUARD_TASKS, replace(pairing, sources_by_model=sources_by_model))
    expected = mine(records, taken, GUARD_TASKS, pairing)
    assert (mined.pairs, mined.tallies, mined.scopes) == (expected.pairs, expected.tallies, expected.scopes)
    total = mined.total()
    assert total.not_mined == len(rollouts) - len(taken)
    assert replace(total, not_mined=0) == expected.total()


def test_who_mines_what() -> None:
    records = [asked("a", "embedded/home"), asked("b", "embedded/health"), asked("c", "other")]
    rollouts = [o for record in records for model in ("main", "member") for o in outputs(record.id, [R, W], model)]

    def models(**sources_by_model: list[str]) -> dict[str, set[str]]:
        mined = mine(records, rollouts, GUARD_TASKS, Pairing(pool=False, sources_by_model=sources_by_model))
        found: dict[str, set[str]] = {record.id: set() for record in records}
        for tally in mined.tallies:
            found[tally.record_id].add(tally.model)
        return found

    both = {"main", "member"}
    assert models() == {"a": both, "b": both, "c": both}
    assert models(main=["other"], member=["embedded"]) == {"a": {"member"}, "b": {"member"}, "c": {"main"}}
    assert models(member=["embedded/home"]) == {"a": both, "b": {"main"}, "c": {"main"}}
    assert models(main=[]) == {"a": {"member"}, "b": {"member"}, "c": {"member"}}
    counts = mine(records, rollouts, GUARD_TASKS, Pairing(sources_by_model={"main": ["embedded/home"]})).counts
    assert {source: one.not_mined for source, one in counts.items()} == {
        "embedded/health": 2,
        "embedded/home": 0,
        "other": 2,
    }
    with pytest.raises(InputError, match="no rollout is of a model 'mian'; there are: main, member"):
        models(mian=[])
    for name in ("emb", "embedded/", "embedded/home/x"):
        with pytest.raises(
            InputError, match=f"main: no record is of a source '{name}'; there are: embedded/health, em"
        ):
            models(main=[name])
    with pytest.raises(
        InputError, match=r"of those that pairing.sources_by_model leaves\): with k = 1 nothing can be mixed"
    ):
        models(main=[], member=[])


def test_equal_options_are_equal() -> None:
    one, other = (
        Pairing(sources_by_model={"b": ("y", "x"), "a": []}),
        Pairing(sources_by_model={"a": [], "b": ["x", "y", "x"]}),
    )
    assert repr(one) == repr(other)
    assert one == other


def test_the_presets_differ_where_paper_code_and_plan_differ() -> None:
    assert PRESETS["plan"] == Pairing()
    assert (PRESETS["paper"].gamma, PRESETS["paper"].parser) == (0.2, "final-block")
    released = PRESETS["released"]
    assert (released.pool, released.unparsable, released.chosen, released.graded) == (
        False,
        "drop",
        "longest",
        "first-mixed",
    )


@pytest.mark.parametrize(
    "wrong",
    [{"gamma": g} for g in (1.0, -0.1, float("nan"), float("inf"))]
    + [{"parser": "strict"}, {"unparsable": "right"}, {"chosen": "best"}, {"rejected": ""}, {"graded": "none"}]
    + [{"cap": cap} for cap in (0, -1, True, 2.0)]
    + [{"sources_by_model": ["m"]}],
    ids=str,
)
def test_a_bad_option_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"pairing: {next(iter(wrong))} must be"):
        replace(Pairing(), **wrong)


def test_sources_of_a_model_are_a_list() -> None:
    with pytest.raises(InputError, match="pairing: sources_by_model: m: expected a list of sources, got 'embedded'"):
        Pairing(sources_by_model={"m": "embedded"})
    with pytest.raises(InputError, match="pairing: sources_by_model: m: expected a list of sources"):
        Pairing(sources_by_model={"m": [1]})  # type: ignore[list-item]
