"""What ``doctor --answers`` scores."""

from pathlib import Path

import pytest

from guardreasoner.evaluation.format_check import check_format
from guardreasoner.generators import ScoreRequest
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.batch import Example
from guardreasoner.training.training_data import TrainingItem
from tests.support.tiny import TinySource, load


@pytest.mark.parametrize("truncated", [False, True])
def test_targets_are_scored_with_the_tokens_that_training_has(truncated: bool, tiny_base: Path) -> None:
    backbone = load(tiny_base)
    tokenizer, record = backbone.prompt_tokenizer, TinySource().records("train")[0]
    text, prompt = "I judge by", tuple(tokenizer.prompt(record))
    ids = tuple(tokenizer.completions([text], [truncated])[0])
    item = TrainingItem(record, (text,), Example(record.id, prompt, (ids,)), truncated=(truncated,))
    (scores,) = LocalGenerator(backbone).score([ScoreRequest(record.id, prompt, (ids,))])
    assert check_format(backbone, [item]).loss == pytest.approx(-scores.logps[0] / len(ids), rel=1e-5)
