from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.mining import PRESETS, Pairing, mine
from guardreasoner.tasks import GUARD_TASKS
from tests.support.scripted import R, RecordsAndRollouts, W, make_outputs, make_record, pairings, records_with_rollouts


@given(records_with_rollouts(), pairings, st.data())
def test_excluded_outputs_do_not_change_the_result(
    records_and_rollouts: RecordsAndRollouts, pairing: Pairing, data: st.DataObject
) -> None:
    records, rollouts = records_and_rollouts
    models, sources = {r.model for r in rollouts}, {record.id: record.source for record in records}
    some_sources = st.lists(st.sampled_from(sorted(set(sources.values()))), max_size=2)
    sources_by_model = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(models), some_sources)))
    included = [
        r for r in rollouts if r.model not in sources_by_model or sources[r.record_id] in sources_by_model[r.model]
    ]
    k = Counter((r.record_id, "" if pairing.pool else r.model) for r in included)
    assume(k and max(k.values()) > 1)
    mined = mine(records, rollouts, GUARD_TASKS, replace(pairing, sources_by_model=sources_by_model))
    expected = mine(records, included, GUARD_TASKS, pairing)
    assert mined.pairs == expected.pairs
    assert mined.record_grades == expected.record_grades
    assert mined.scaling_scopes == expected.scaling_scopes
    total = mined.total()
    assert total.not_mined == len(rollouts) - len(included)
    assert replace(total, not_mined=0) == expected.total()


def test_sources_by_model_selects_which_models_are_mined() -> None:
    records = [make_record("a", "embedded/home"), make_record("b", "embedded/health"), make_record("c", "other")]
    rollouts = [o for record in records for model in ("main", "member") for o in make_outputs(record.id, [R, W], model)]

    def mined_models(**sources_by_model: list[str]) -> dict[str, set[str]]:
        mined = mine(records, rollouts, GUARD_TASKS, Pairing(pool=False, sources_by_model=sources_by_model))
        models: dict[str, set[str]] = {record.id: set() for record in records}
        for row in mined.record_grades:
            models[row.record_id].add(row.model)
        return models

    both = {"main", "member"}
    assert mined_models() == {"a": both, "b": both, "c": both}
    assert mined_models(main=["other"], member=["embedded"]) == {"a": {"member"}, "b": {"member"}, "c": {"main"}}
    assert mined_models(member=["embedded/home"]) == {"a": both, "b": {"main"}, "c": {"main"}}
    assert mined_models(main=[]) == {"a": {"member"}, "b": {"member"}, "c": {"member"}}
    counts = mine(records, rollouts, GUARD_TASKS, Pairing(sources_by_model={"main": ["embedded/home"]})).counts
    assert {source: source_counts.not_mined for source, source_counts in counts.items()} == {
        "embedded/health": 2,
        "embedded/home": 0,
        "other": 2,
    }
    with pytest.raises(InputError, match="no rollouts of model 'mian'; there are: main, member"):
        mined_models(mian=[])
    for name in ("emb", "embedded/", "embedded/home/x"):
        with pytest.raises(InputError, match=f"main: no records of source '{name}'; there are: embedded/health, em"):
            mined_models(main=[name])
    with pytest.raises(
        InputError, match=r"of those that pairing.sources_by_model leaves\): with k = 1 nothing can be mixed"
    ):
        mined_models(main=[], member=[])


def test_the_order_of_sources_does_not_matter() -> None:
    first, second = (
        Pairing(sources_by_model={"b": ("y", "x"), "a": []}),
        Pairing(sources_by_model={"a": [], "b": ["x", "y", "x"]}),
    )
    assert repr(first) == repr(second)
    assert first == second


def test_presets() -> None:
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
    "option",
    [{"gamma": g} for g in (1.0, -0.1, float("nan"), float("inf"))]
    + [{"parser": "strict"}, {"unparsable": "right"}, {"chosen": "best"}, {"rejected": ""}, {"graded": "none"}]
    + [{"cap": cap} for cap in (0, -1, True, 2.0)]
    + [{"sources_by_model": ["m"]}],
    ids=str,
)
def test_an_invalid_option_is_named(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"pairing: {next(iter(option))} must be"):
        replace(Pairing(), **option)


def test_the_sources_of_a_model_must_be_a_list() -> None:
    with pytest.raises(InputError, match="pairing: sources_by_model: m: expected a list of sources, got 'embedded'"):
        Pairing(sources_by_model={"m": "embedded"})
    with pytest.raises(InputError, match="pairing: sources_by_model: m: expected a list of sources"):
        Pairing(sources_by_model={"m": [1]})  # type: ignore[list-item]
