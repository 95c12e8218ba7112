"""Operations of a planned fit, with numbers derived by hand."""

import pytest
from transformers import LlamaConfig

from guardreasoner.diagnosis.data_sizes import DataSizes
from guardreasoner.diagnosis.run_cost import operations
from guardreasoner.diagnosis.run_plan import Schedule, Settings
from guardreasoner.diagnosis.step_memory import Parameters

SHAPE = LlamaConfig(
    vocab_size=100,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
SIZES = DataSizes([30, 40, 50], [(10, 20), (10, 10), (5, 5)], 20, "three pairs")
FULL = Settings("float32", None, None, False, 2, 2, None, 512, None, 1, False, 1, "cpu")


def test_operations_are_two_per_weight_and_token_and_twice_that_backward() -> None:
    parameters = Parameters(base=100 * 32 + 1000, adapter=0, trained=4200, trained_bytes=0, saved_bytes=0)
    schedule = Schedule(SIZES, 2, 2)
    attention = 4 * 4 * 4 * 8 * ((50 + 50 + 55) / 3) / 2
    expected = schedule.packed_tokens * 3 * (2000 + attention) + 120 * 6 * 3200
    assert operations(SHAPE, FULL, schedule, parameters).total == pytest.approx(expected)
