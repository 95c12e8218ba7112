"""Real pairs for the benchmarks: published predictions, or pairs of the embedded corpus."""

from itertools import pairwise
from pathlib import Path

import pytest
from peers.real_pairs import tokenized_pairs

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone


def test_without_predictions_the_embedded_corpus_is_paired(tiny_base: Path, tmp_path: Path) -> None:
    tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    rows = tokenized_pairs(tmp_path / "none", tokenizer)
    assert len({row["id"] for row in rows}) == len(rows) > 100
    for one, other in pairwise(rows):
        assert one["completions"][1] == other["completions"][0]  # the target of the next record
    assert "Answers:" in tokenizer.decode(rows[0]["completions"][0])


def test_a_made_model_needs_the_predictions(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder of published predictions"):
        tokenized_pairs(tmp_path / "none", Backbone(str(tiny_base)).prompt_tokenizer, embedded=False)
