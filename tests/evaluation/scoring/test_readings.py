"""The positive side of a task: ordered labels, and outputs that cannot be read."""

from collections.abc import Mapping

import pytest

from guardreasoner.evaluation.scoring.readings import positive_labels, positive_probability
from guardreasoner.tasks import GUARD_TASKS, Task

REQUEST = GUARD_TASKS[0]


@pytest.mark.parametrize(
    ("shares", "score"),
    [
        ({"harmful": 0.75, "unharmful": 0.25}, 0.75),
        ({"harmful": 0.0, "unharmful": 1.0}, 0.0),
        ({"harmful": 0.25, "unharmful": 0.5}, 0.25),
        ({"harmful": 0.0, "unharmful": 0.5}, None),  # half of the outputs is unparsed
        ({"harmful": 0.0, "unharmful": 0.0}, None),
        ({}, None),
        (None, None),
    ],
)
def test_unreadable_outputs_are_no_votes_for_harmless(shares: Mapping[str, float] | None, score: float | None) -> None:
    assert positive_probability(shares, REQUEST) == score
    assert positive_labels(REQUEST) == positive_labels(REQUEST, "loose") == ("harmful",)


def test_the_middle_of_ordered_labels_is_positive_or_negative() -> None:
    task = Task("harm", "Harm", "how harmful?", ("safe", "controversial", "unsafe"), ordered=True)
    shares = {"safe": 0.25, "controversial": 0.25, "unsafe": 0.5}
    assert positive_labels(task, "strict") == ("controversial", "unsafe")
    assert positive_labels(task, "loose") == ("unsafe",)
    assert positive_probability(shares, task, "strict") == 0.75
    assert positive_probability(shares, task, "loose") == 0.5
