from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.training.sampler import StepSampler

SHAPES = st.fixed_dictionaries(
    {
        "lengths": st.lists(st.integers(1, 9), min_size=1, max_size=40),
        "batch_size": st.integers(1, 12),
        "epochs": st.integers(1, 4),
        "seed": st.integers(0, 3),
        "bucket_steps": st.integers(1, 3),
    }
)


@given(SHAPES)
def test_every_epoch_is_a_permutation_cut_into_steps(shape: dict[str, Any]) -> None:
    sampler = StepSampler(**shape)
    steps = list(sampler)
    size, batch_size = len(shape["lengths"]), shape["batch_size"]
    assert len(steps) == len(sampler) == shape["epochs"] * sampler.steps_per_epoch
    for epoch in range(shape["epochs"]):
        part = steps[epoch * sampler.steps_per_epoch : (epoch + 1) * sampler.steps_per_epoch]
        assert sorted(map(len, part), reverse=True) == [batch_size] * (size // batch_size) + [
            rest for rest in [size % batch_size] if rest
        ]
        assert sorted(index for step in part for index in step) == list(range(size))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = StepSampler([1] * 50, 50, 2)
    assert first != second
    assert list(StepSampler([1] * 50, 50, 2, seed=1)) != [first, second]
    assert list(StepSampler([1] * 50, 50, 2)) == [first, second]


@given(SHAPES, st.integers(0, 200))
def test_a_saved_position_gives_the_same_rest(shape: dict[str, Any], stop: int) -> None:
    whole = list(StepSampler(**shape))
    stop %= len(whole)
    interrupted = StepSampler(**shape)
    running = iter(interrupted)
    done = [next(running) for _ in range(stop)]
    resumed = StepSampler(**shape)
    resumed.load_state_dict(interrupted.state_dict())
    assert [*done, *resumed] == whole
    assert list(resumed) == whole  # and a finished run starts anew


@pytest.mark.parametrize(
    "other", [{"lengths": [5] * 11}, {"batch_size": 4}, {"seed": 1}, {"start_epoch": 1}, {"bucket_steps": 2}]
)
def test_the_state_of_another_run_is_refused(other: dict[str, Any]) -> None:
    own = {"lengths": [5] * 10, "batch_size": 3, "epochs": 2, "seed": 0}
    saved = StepSampler(**own).state_dict()
    named = next(iter(other)).replace("lengths", "size")
    with pytest.raises(InputError, match=f"made with {named} "):
        StepSampler(**(own | other)).load_state_dict(saved)


@pytest.mark.parametrize("bucket_steps", [1, 2])
def test_a_later_start_goes_on_with_the_order_of_the_whole_schedule(bucket_steps: int) -> None:
    lengths = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    whole = StepSampler(lengths, 4, 3, seed=5, bucket_steps=bucket_steps)
    rest = StepSampler(lengths, 4, 3, start_epoch=1, seed=5, bucket_steps=bucket_steps)
    assert list(rest) == list(whole)[whole.steps_per_epoch :]
    assert len(rest) == 6


def test_the_batch_size_cuts_the_order_and_does_not_change_it() -> None:
    def flat(batch_size: int) -> list[int]:
        return [index for step in StepSampler([1] * 12, batch_size, 2, seed=3) for index in step]

    assert flat(1) == flat(5) == flat(12)


def test_a_bucket_holds_like_with_like() -> None:
    # One bucket of all four steps, sorted and cut: each step holds two neighbours in length, in a drawn order.
    steps = list(StepSampler([8, 1, 7, 2, 6, 3, 5, 4], 2, 20, bucket_steps=4))
    assert {frozenset(step) for step in steps} == {frozenset(p) for p in ((1, 3), (5, 7), (6, 4), (2, 0))}
    assert len({tuple(map(tuple, steps[i : i + 4])) for i in range(0, 80, 4)}) > 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([], 1, 1), "no example"),
        (([5], 0, 1), "data.batch_size"),
        (([5], 1, 0), "data.start_epoch"),
        (([5], 1, 2, 2), "data.start_epoch"),
        (([5], 1, 2, -1), "data.start_epoch"),
        (([5], 1, 2, 0, 0, 0), "data.bucket_steps"),
    ],
)
def test_impossible_numbers_are_refused(arguments: tuple[Any, ...], named: str) -> None:
    with pytest.raises(InputError, match=named):
        StepSampler(*arguments)
