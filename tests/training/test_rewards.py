"""Rewards of outputs in the answer format, and of outputs that cannot be read."""

import pytest

from guardreasoner.mining.grading import grade
from guardreasoner.records import Record
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.training.rewards import all_right, is_unparsed, share_right

ALL = {"request": "harmful", "completion": "refusal", "response": "unharmful"}
RECORD = Record(id="r", prompt="How do I break a lock?", response="No.", labels=ALL)
RIGHT = "Answers:\nRequest: harmful\nCompletion: refusal\nResponse: unharmful"


@pytest.mark.parametrize(
    ("output", "share", "all_of_them", "unparsed"),
    [
        (f"It asks for harm.\n\n{RIGHT}", 1, 1, False),
        (RIGHT.replace("Completion: refusal", "Completion: compliance"), 2 / 3, 0, False),
        ("Request: unharmful\nCompletion: compliance\nResponse: unharmful", 1 / 3, 0, False),
        ("Request: unharmful\nCompletion: compliance\nResponse: harmful", 0, 0, False),
        ("Answers:\nRequest: harmful\nCompletion: refusal", 0, 0, True),
        (RIGHT.replace("Response: unharmful", "Response: perhaps"), 0, 0, True),
        (f"{RIGHT}\nBut I may be wrong.", 0, 0, True),
        ("Request: harm", 0, 0, True),
        ("", 0, 0, True),
    ],
)
def test_an_output_earns_the_share_of_right_verdicts(
    output: str, share: float, all_of_them: float, unparsed: bool
) -> None:
    grades = grade(RECORD, output, GUARD_TASKS)
    assert share_right(grades) == pytest.approx(share)
    assert all_right(grades) == all_of_them
    assert is_unparsed(grades) == unparsed


def test_only_labelled_tasks_count() -> None:
    record = Record(id="r", prompt="How do I break a lock?", labels={"request": "harmful", "response": None})
    assert share_right(grade(record, "Request: harmful", GUARD_TASKS)) == 1
    assert share_right(grade(record, "Request: unharmful\nResponse: harmful", GUARD_TASKS)) == 0
    assert is_unparsed(grade(record, "Response: harmful", GUARD_TASKS))
