"""Operations of a planned fit, with numbers derived by hand."""

import pytest

from guardreasoner.diagnosis.run_cost import operations
from guardreasoner.diagnosis.run_plan import Schedule
from guardreasoner.diagnosis.step_memory import Parameters
from tests.support.planned import FULL, SHAPE, SIZES


def test_operations_are_two_per_weight_and_token_and_twice_that_backward() -> None:
    parameters = Parameters(base=100 * 32 + 1000, adapter=0, trained=4200, trained_bytes=0, saved_bytes=0)
    schedule = Schedule(SIZES, 2, 2)
    attention = 4 * 4 * 4 * 8 * ((50 + 50 + 55) / 3) / 2
    expected = schedule.packed_tokens * 3 * (2000 + attention) + 120 * 6 * 3200
    assert operations(SHAPE, FULL, schedule, parameters).total == pytest.approx(expected)
