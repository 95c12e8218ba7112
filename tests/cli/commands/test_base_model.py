"""The verb ``base-model``: a tokenizer trained on the data, and a Llama of the requested shape."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from guardreasoner.cli.main import main
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import target
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.staleness import status
from tests.support.tiny import TinySource

CONFIG = Path(__file__).parents[3] / "configs" / "base.yaml"
OVERLAY = """
recipe: {vocabulary: 320}
opening: Judge this.
hidden_size: 16
intermediate_size: 24
layers: 2
heads: 2
kv_heads: 1
max_length: 256
data: {init_args: {source: tests.support.tiny.TinySource}}
"""
Make = Callable[..., int]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Work in a temporary folder and return a function that runs the verb with more YAML."""
    monkeypatch.chdir(tmp_path)

    def run(*texts: str) -> int:
        words = ["base-model", "--config", str(CONFIG)]
        for number, text in enumerate(texts):
            Path(f"{number}.yaml").write_text(text)
            words += ["--config", f"{number}.yaml"]
        return main(words)

    yield run
    logging.getLogger("guardreasoner").handlers.clear()


def test_the_folder_is_a_model_of_the_shape_that_is_asked_for(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(OVERLAY) == 0
    assert capsys.readouterr().out.startswith("checkpoints/base: 0.0")
    backbone = Backbone("checkpoints/base")
    backbone.load()
    shape = backbone.network.config
    assert (shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers) == (16, 24, 2)
    assert (shape.num_attention_heads, shape.num_key_value_heads) == (2, 1)
    assert shape.vocab_size == len(backbone.prompt_tokenizer.tokenizer) == 320
    assert backbone.prompt_tokenizer.format.opening == "Judge this."


def test_the_tokenizer_round_trips(make: Make) -> None:
    assert make(OVERLAY) == 0
    prompt_tokenizer = Backbone("checkpoints/base").prompt_tokenizer
    for record in TinySource().records("train"):
        text = target(record, GUARD_TASKS)
        ids = prompt_tokenizer.completion(text)
        assert prompt_tokenizer.decode(ids) == text
        assert ids[-1] == prompt_tokenizer.end
        assert len(ids) < len(text)
    odd = "naïve 猫 🙂 <end> <pad>"
    assert prompt_tokenizer.decode(prompt_tokenizer.completion(odd)) == odd


@pytest.mark.slow
def test_the_same_config_makes_the_same_weights(make: Make) -> None:
    weights = []
    for extra in ("seed: 0", "seed: 1", "seed: 0"):
        assert make(OVERLAY, extra) == 0
        backbone = Backbone("checkpoints/base")
        backbone.load()
        weights.append(backbone.network.state_dict())
    first, other, again = weights
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_output_is_up_to_date(make: Make) -> None:
    assert make(OVERLAY) == 0
    words = ["base-model", "--config", str(CONFIG), "--config", "0.yaml"]
    assert status(resolve(words)) is None
    Path("0.yaml").write_text(OVERLAY + "seed: 5\n")
    assert status(resolve(words)) == "config changed"


def test_a_seed_gives_other_weights_and_is_checked(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(OVERLAY) == 0
    words = ["base-model", "--config", str(CONFIG), "--config", "0.yaml", "--recipe.vocabulary", "320"]
    assert main([*words, "--seed", "5", "--output", "other"]) == 0
    first, other = (load_file(f"{folder}/model.safetensors") for folder in ("checkpoints/base", "other"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert first[name].shape == other[name].shape
    assert not torch.equal(first[name], other[name])
    capsys.readouterr()
    assert main([*words, "--seed", "five"]) == 2
    assert "seed" in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("heads: 3", "hidden_size 16 must be a multiple of heads 3"),
        ("layer: 3", "1.yaml:1: unknown key 'layer'"),
        ("layers: many", "layers"),
        (
            "data: {init_args: {source: {class_path: tests.support.tiny.TinySource, init_args: {train: 0}}}}",
            "split is empty",
        ),
        ("data: {init_args: {source: {class_path: tests.support.tiny.Tidy}}}", "tests.support.tiny.Tidy"),
        (
            "data: {init_args: {source: {class_path: guardreasoner.sources.embedded.Embedded, init_args: {test: -1}}}}",
            "source.init_args.test: expected a whole number of at least 0, got -1",
        ),
    ],
)
def test_a_user_error_is_one_line(text: str, message: str, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(OVERLAY, text) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] in (["error"], ["error", "hint"])
    assert message in lines[0]
    assert not Path("checkpoints/base").exists()
    assert not list(Path("checkpoints").glob("*")) + list(Path("checkpoints").glob(".*"))
