import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.evaluation.scoring.metrics import (
    ACCURACY,
    F1,
    FALSE_POSITIVE_RATE,
    RECALL,
    classification_scores,
    positive_f1,
    weight_unparsed,
)
from guardreasoner.tasks import GUARD_TASKS, Task

REQUEST, COMPLETION, _ = GUARD_TASKS
THREE = Task("kind", "Kind", "what kind is it?", ("a", "b", "c"), "a")
COUNTS = st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=2, max_size=2)


def test_by_hand() -> None:
    # harmful: 6 found, 2 called unharmful, 1 unparsed; unharmful: 3 called harmful, 9 right, 2 unparsed
    found = classification_scores(np.array([[6.0, 2, 1], [3, 9, 2]]), REQUEST)
    assert found[ACCURACY] == pytest.approx(100 * 15 / 23)
    assert found[RECALL] == pytest.approx(100 * 6 / 9)
    assert found[FALSE_POSITIVE_RATE] == pytest.approx(100 * 5 / 14)  # the unparsed ones are wrong, too
    assert found[F1] == positive_f1(found, REQUEST) == pytest.approx(100 * 12 / (12 + 5 + 3))
    assert found[F1 + 1] == pytest.approx(100 * 18 / (18 + 3 + 5))


def test_modes_weigh_the_unparsed() -> None:
    counts = np.array([[6.0, 2, 1], [3, 9, 2]])
    assert weight_unparsed(counts, REQUEST, "strict").tolist() == counts.tolist()
    assert weight_unparsed(counts, REQUEST, "drop")[:, 2].tolist() == [0, 0]
    assert weight_unparsed(counts, REQUEST, "released")[:, 2].tolist() == [0, 4]
    assert weight_unparsed(counts, COMPLETION, "released")[:, 2].tolist() == [2, 4]
    assert counts[:, 2].tolist() == [1, 2]


def test_with_three_labels_the_others_share_the_cost_of_the_unparsed() -> None:
    found = classification_scores(np.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]), THREE)
    # a: 1 hit, 1 missed. b and c: 1 hit, and half of a wrong claim.
    assert found[F1:] == pytest.approx([200 / 3, 80, 80])
    assert found[FALSE_POSITIVE_RATE] == 0


def test_nothing_counted_is_undefined() -> None:
    assert np.isnan(classification_scores(np.zeros((2, 3)), REQUEST)).all()
    alone = classification_scores(np.array([[0.0, 2, 0], [0, 0, 0]]), REQUEST)
    assert alone[[ACCURACY, RECALL, F1]].tolist() == [0, 0, 0]
    assert np.isnan(alone[[FALSE_POSITIVE_RATE, F1 + 1]]).all()


@given(st.lists(COUNTS, min_size=1, max_size=4))
def test_arrays_of_counts_are_their_parts(several: list[list[list[int]]]) -> None:
    counts = np.array(several, dtype=np.float64)
    together = classification_scores(counts, REQUEST)
    for one, found in zip(counts, together, strict=True):
        np.testing.assert_array_equal(classification_scores(one, REQUEST), found)
        defined = found[~np.isnan(found)]
        assert ((defined >= 0) & (defined <= 100)).all()


@given(COUNTS)
def test_labels_that_change_places_change_their_f1(counts: list[list[int]]) -> None:
    one = np.array(counts, dtype=np.float64)
    other = one[::-1][:, [1, 0, 2]]
    np.testing.assert_allclose(
        classification_scores(one, REQUEST)[[F1, F1 + 1]], classification_scores(other, REQUEST)[[F1 + 1, F1]]
    )
