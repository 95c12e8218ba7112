"""Metrics from confusion counts, by hand and as properties."""

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


def test_classification_scores_by_hand() -> None:
    # harmful: 6 hits, 2 judged unharmful, 1 unparsed; unharmful: 3 judged harmful, 9 hits, 2 unparsed
    scores = classification_scores(np.array([[6.0, 2, 1], [3, 9, 2]]), REQUEST)
    assert scores[ACCURACY] == pytest.approx(100 * 15 / 23)
    assert scores[RECALL] == pytest.approx(100 * 6 / 9)
    assert scores[FALSE_POSITIVE_RATE] == pytest.approx(100 * 5 / 14)  # unparsed answers are wrong, too
    assert scores[F1] == positive_f1(scores, REQUEST) == pytest.approx(100 * 12 / (12 + 5 + 3))
    assert scores[F1 + 1] == pytest.approx(100 * 18 / (18 + 3 + 5))


def test_weight_of_unparsed_answers_by_mode() -> None:
    counts = np.array([[6.0, 2, 1], [3, 9, 2]])
    assert weight_unparsed(counts, REQUEST, "strict").tolist() == counts.tolist()
    assert weight_unparsed(counts, REQUEST, "drop")[:, 2].tolist() == [0, 0]
    assert weight_unparsed(counts, REQUEST, "released")[:, 2].tolist() == [0, 4]
    assert weight_unparsed(counts, COMPLETION, "released")[:, 2].tolist() == [2, 4]
    assert counts[:, 2].tolist() == [1, 2]


def test_with_three_labels_the_others_share_the_cost_of_unparsed_answers() -> None:
    scores = classification_scores(np.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]), THREE)
    # a: 1 hit, 1 miss. b and c: 1 hit and half a false positive.
    assert scores[F1:] == pytest.approx([200 / 3, 80, 80])
    assert scores[FALSE_POSITIVE_RATE] == 0


def test_scores_without_counts_are_undefined() -> None:
    assert np.isnan(classification_scores(np.zeros((2, 3)), REQUEST)).all()
    alone = classification_scores(np.array([[0.0, 2, 0], [0, 0, 0]]), REQUEST)
    assert alone[[ACCURACY, RECALL, F1]].tolist() == [0, 0, 0]
    assert np.isnan(alone[[FALSE_POSITIVE_RATE, F1 + 1]]).all()


@given(st.lists(COUNTS, min_size=1, max_size=4))
def test_vectorized_scores_equal_single_scores(several: list[list[list[int]]]) -> None:
    counts = np.array(several, dtype=np.float64)
    vectorized = classification_scores(counts, REQUEST)
    for matrix, scores in zip(counts, vectorized, strict=True):
        np.testing.assert_array_equal(classification_scores(matrix, REQUEST), scores)
        defined = scores[~np.isnan(scores)]
        assert ((defined >= 0) & (defined <= 100)).all()


@given(COUNTS)
def test_swapping_labels_swaps_their_f1(counts: list[list[int]]) -> None:
    matrix = np.array(counts, dtype=np.float64)
    swapped = matrix[::-1][:, [1, 0, 2]]
    np.testing.assert_allclose(
        classification_scores(matrix, REQUEST)[[F1, F1 + 1]], classification_scores(swapped, REQUEST)[[F1 + 1, F1]]
    )
