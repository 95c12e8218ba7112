"""Which records a format judges, and with which labels."""

import pytest

from guardreasoner.formats.verdicts import JudgedRecords
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Record
from guardreasoner.tasks import GUARD_TASKS

BOTH = Record("both", "p", "r", {"request": "harmful", "response": "unharmful"})
OTHER = Record("other", "p", "r", {"request": None, "response": "harmful"})
BARE = Record("bare", "p")


def test_labels_of_tasks_that_a_model_does_not_have_are_ignored_and_counted() -> None:
    judged = JudgedRecords(PromptFormat((GUARD_TASKS[0],)))
    found = list(judged.of([BOTH, OTHER, BARE]))
    assert [(record.id, dict(record.labels)) for record in found] == [("both", {"request": "harmful"}), ("bare", {})]
    assert judged.note() == (
        "1 of 3 records have no label for request and are left out; labels of other tasks are ignored in 1 records"
    )


@pytest.mark.parametrize("format", [None, PromptFormat()])
def test_records_without_other_labels_stay_as_they_are(format: PromptFormat | None) -> None:
    judged = JudgedRecords(format)
    assert list(judged.of([BOTH, OTHER, BARE])) == [BOTH, OTHER, BARE]
    assert judged.note() is None
