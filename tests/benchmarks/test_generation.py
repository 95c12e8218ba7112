"""Both sides of the sampling benchmark produce outputs of the given lengths."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peers.generation import StopAtLength, greedy, left_padded, sample_ours, sample_theirs
from peers.job import Sampling
from transformers import AutoModelForCausalLM

from guardreasoner.model.backbone import Backbone
from tests.support.tiny import TinySource, load

LENGTHS = ([3, 7, 1, 5], [6, 2, 4, 7])


@pytest.fixture
def backbone(tiny_base: Path) -> Backbone:
    return load(tiny_base)


@pytest.fixture
def network(tiny_base: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture
def rows(backbone: Backbone) -> list[dict[str, Any]]:
    records = TinySource().records("train")[: len(LENGTHS)]
    prompts = backbone.prompt_tokenizer.prompts(records)
    assert len(prompts[0]) != len(prompts[1])
    return [
        {"id": record.id, "prompt": ids, "lengths": lengths}
        for record, ids, lengths in zip(records, prompts, LENGTHS, strict=True)
    ]


def job(tiny_base: Path, side: str) -> Sampling:
    return Sampling(side, str(tiny_base), "", at_once=8, max_new_tokens=16, threads=1)


def test_our_outputs_have_the_given_lengths(backbone: Backbone, tiny_base: Path, rows: list[dict[str, Any]]) -> None:
    decoded_lengths: list[int] = []
    original = backbone.prompt_tokenizer.decode

    def decode(ids: list[int]) -> str:
        decoded_lengths.append(len(ids))
        return original(ids)

    backbone.prompt_tokenizer.decode = decode  # type: ignore[method-assign]
    expected = [length for lengths in LENGTHS for length in lengths]
    assert sample_ours(job(tiny_base, "ours"), backbone, rows) == sum(expected)
    # An engine may decode the last token, which stands for the end token, or drop it.
    assert sorted(decoded_lengths) in (sorted(expected), [length - 1 for length in sorted(expected)])


def test_outputs_of_transformers_have_the_given_lengths(
    backbone: Backbone, network: Any, tiny_base: Path, rows: list[dict[str, Any]]
) -> None:
    steps: list[int] = []
    network.register_forward_hook(lambda *_: steps.append(1))
    prompt_tokenizer = backbone.prompt_tokenizer
    tokens = sample_theirs(
        job(tiny_base, "transformers"), network, rows, prompt_tokenizer.padding, prompt_tokenizer.end
    )
    assert tokens == sum(map(sum, LENGTHS))
    assert len(steps) == max(map(max, LENGTHS))  # fewer than the limit of 16


def test_rows_stop_at_their_length() -> None:
    criterion = StopAtLength(10, torch.tensor([1, 2, 3]), end=2)
    assert criterion(torch.zeros(3, 12), None).tolist() == [True, True, False]


def test_prompts_are_padded_on_the_left() -> None:
    input_ids, mask = left_padded([{"prompt": [5]}, {"prompt": [6, 7]}], 0, "cpu")
    assert (input_ids.tolist(), mask.tolist()) == ([[0, 5], [6, 7]], [[0, 1], [1, 1]])


def test_greedy_texts_are_equal(backbone: Backbone, network: Any, tiny_base: Path, rows: list[dict[str, Any]]) -> None:
    ours, theirs = greedy(job(tiny_base, "both"), backbone, network, rows)
    assert ours == theirs
    assert all(ours)
