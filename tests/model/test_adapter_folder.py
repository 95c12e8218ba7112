"""Adapter folders of other tools load as peft loads them; one that does not fit its base is one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, PeftModel, PrefixTuningConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.lora import LoRA
from guardreasoner.prompts import PromptFormat
from guardreasoner.training.reference import FrozenAdapter
from tests.support.architectures import make_adapter, make_model_folder
from tests.support.foreign_runs import HUB_NAME, axolotl, checkpoint, llama_factory, name_base, trl
from tests.support.tiny import batch_of, examples, load, naive_logps

ADDED = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
RUNS: dict[str, Callable[..., Path]] = {
    "LLaMA-Factory": llama_factory,
    "LLaMA-Factory, checkpoint": lambda *given: llama_factory(*given) / "checkpoint-4",
    "LLaMA-Factory, rsLoRA and DoRA": lambda *given: llama_factory(*given, use_rslora=True, use_dora=True),
    "LLaMA-Factory, additional_target": lambda *given: llama_factory(*given, modules_to_save=["lm_head"]),
    "TRL": trl,
    "TRL, reference": lambda *given: trl(*given) / "ref",
    "Axolotl": axolotl,
    "Axolotl, added tokens": lambda *given: axolotl(*given, tokens=ADDED),
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without access to a hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def plain_logps(network: Any, backbone: Backbone) -> torch.Tensor:
    """Return the log-probabilities of ``batch_of`` from a network that this project has not touched."""
    pairs = examples(backbone.prompt_tokenizer, 2)
    rows = [(pair.prompt, pair.completions[number]) for number in (0, 1) for pair in pairs]
    with torch.no_grad():
        return torch.cat([naive_logps(network, prompt, completion) for prompt, completion in rows])


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_another_tool_loads_as_in_peft_and_is_saved_with_its_base(
    name: str, tiny_base: Path, tmp_path: Path
) -> None:
    alarm = tmp_path / "unpickled"
    folder = RUNS[name](tiny_base, tmp_path / "run", alarm)
    format = PromptFormat(opening="Judge.")
    backbone = load(folder, double=True, base_path=str(tiny_base), format=format)
    network = AutoModelForCausalLM.from_pretrained(tiny_base)
    if "added" in name:
        network.resize_token_embeddings(302)
        assert backbone.embedding_rows == 302
        assert backbone.prompt_tokenizer.end == 300
    expected = plain_logps(PeftModel.from_pretrained(network, folder).double().eval(), backbone)
    batch = batch_of(backbone.prompt_tokenizer, 2)
    torch.testing.assert_close(backbone.completion_logps(batch).detach(), expected, rtol=1e-8, atol=1e-8)

    backbone.network.float()
    FrozenAdapter().prepare(backbone, examples(backbone.prompt_tokenizer))
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    policy = backbone.completion_logps(batch).detach()
    assert not torch.allclose(policy.double(), expected, atol=1e-3)
    backbone.save(tmp_path / "out")
    again = load(tmp_path / "out")  # without any flag
    torch.testing.assert_close(again.completion_logps(batch).detach(), policy, rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny_base
    )
    assert again.prompt_tokenizer.format == format
    assert backbone.unloaded().weights_fingerprint() == backbone.weights_fingerprint()
    assert not alarm.exists()


def test_a_merged_run_needs_no_base(tiny_base: Path, tmp_path: Path) -> None:
    run = axolotl(tiny_base, tmp_path / "run", tmp_path / "unpickled")
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), run).merge_and_unload()
    merged.save_pretrained(run / "merged")
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(run / "merged")
    backbone = load(run / "merged", lora=LoRA(r=2))
    kept = load(run, base_path=str(tiny_base))
    batch = batch_of(kept.prompt_tokenizer)
    torch.testing.assert_close(backbone.completion_logps(batch), kept.completion_logps(batch), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"model\.backbone\.base_path: .*merged holds all weights"):
        load(run / "merged", base_path=str(tiny_base))


def other_shape(folder: Path, tokenizer_of: Path, **changes: Any) -> Path:
    return make_model_folder("Llama", tokenizer_of, folder, **changes)


def other_words(folder: Path, tokenizer_of: Path) -> Path:
    """Return a model of the same shape whose tokenizer has the words in another order."""
    shutil.copytree(tokenizer_of, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    (first, second) = [token for token, number in vocabulary.items() if number in (40, 41)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda folder, base: other_shape(folder, base, hidden_size=32, head_dim=16),
            r"has 32 (in|out)puts, .* is for 16",
        ),
        (lambda folder, base: other_shape(folder, base, num_hidden_layers=1), r"adapts layer 1 .* has 1 layers"),
        (lambda folder, base: other_shape(folder, base, num_hidden_layers=4), r"\d+ weights are missing.*layers\.2"),
        (
            lambda folder, base: make_model_folder("Phi3", base, folder),
            r"it adapts .*_proj, which the base model does not have",
        ),
        (other_words, r"token 40 is .* here and .* in the base model"),
    ],
    ids=["hidden size", "fewer layers", "more layers", "other modules", "other words"],
)
def test_another_base_is_refused(
    make: Callable[[Path, Path], Path], message: str, tiny_base: Path, tmp_path: Path
) -> None:
    run = llama_factory(tiny_base, tmp_path / "run", tmp_path / "unpickled")
    with pytest.raises(InputError, match=f"run: does not fit the base model .*: .*{message}") as error:
        load(run, base_path=str(make(tmp_path / "other", tiny_base)))
    assert "--model.backbone.base_path FOLDER" in (error.value.hint or "")


@pytest.mark.parametrize("known_from", ["the base model that it names", "a config beside it"])
def test_a_deeper_base_is_refused_for_an_adapter_of_single_layers(
    known_from: str, tiny_base: Path, tmp_path: Path
) -> None:
    names = [f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)]
    run = make_adapter(tiny_base, tmp_path / "run", target_modules=names)
    if known_from == "a config beside it":
        shutil.copyfile(tiny_base / "config.json", run / "config.json")
        name_base(run)
    deeper = other_shape(tmp_path / "deeper", tiny_base, num_hidden_layers=4)
    with pytest.raises(InputError, match=r"run: does not fit .*deeper: .* has 2 layers, the base model has 4"):
        load(run, base_path=str(deeper))
    load(run, base_path=str(tiny_base))


def test_a_fingerprint_of_another_base_is_refused(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_base, tmp_path / "other"))
    weights = {name: weight * 1.01 for name, weight in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="is not the base model that this adapter was trained on"):
        load(tiny_adapter, base_path=str(other))
    moved = Path(shutil.copytree(tiny_base, tmp_path / "moved"))
    load(tiny_adapter, base_path=str(moved))


def test_a_missing_base_is_named(tiny_base: Path, tmp_path: Path) -> None:
    run = llama_factory(tiny_base, tmp_path / "run", tmp_path / "unpickled")
    with pytest.raises(InputError, match=f"run: its base model is missing: {HUB_NAME}: no such folder here") as error:
        load(run)
    assert "--model.backbone.base_path FOLDER" in (error.value.hint or "")
    with pytest.raises(InputError, match=r"absent: (cannot be loaded|no such folder here)"):
        load(run, base_path=str(tmp_path / "absent"))
    name_base(run, None)
    with pytest.raises(InputError, match=r"adapter_config\.json names no base model"):
        load(run)


@pytest.mark.parametrize(
    ("config", "options"), [(IA3Config, {"feedforward_modules": []}), (PrefixTuningConfig, {"num_virtual_tokens": 2})]
)
def test_other_kinds_of_adapters_are_refused(config: Any, options: Any, tiny_base: Path, tmp_path: Path) -> None:
    if config is PrefixTuningConfig:
        options |= {"target_modules": None}
        folder = tmp_path / "adapter"
        folder.mkdir()
        config(task_type="CAUSAL_LM", num_virtual_tokens=2, base_model_name_or_path=str(tiny_base)).save_pretrained(
            folder
        )
    else:
        folder = make_adapter(tiny_base, tmp_path / "adapter", config, **options)
    with pytest.raises(InputError, match=r"adapter_config\.json: peft_type: expected LORA, got '(IA3|PREFIX_TUNING)'"):
        load(folder)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "loftq"])
def test_an_adapter_of_changed_base_weights_is_refused(start: str, tiny_base: Path, tmp_path: Path) -> None:
    run = llama_factory(tiny_base, tmp_path / "run", tmp_path / "unpickled")
    file = run / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": start}))
    with pytest.raises(InputError, match=f"init_lora_weights '{start}'") as error:
        load(run, base_path=str(tiny_base))
    assert "pissa_converted" in (error.value.hint or "")


def test_a_folder_without_weights_says_where_some_are(tiny_base: Path, tmp_path: Path) -> None:
    run = llama_factory(tiny_base, tmp_path / "run", tmp_path / "unpickled")
    bare = checkpoint(run / "checkpoint-2", run, tmp_path / "unpickled", weights=False)
    with pytest.raises(InputError, match=r"checkpoint-2: the state of a training run \(optimizer.pt, ") as error:
        load(bare, base_path=str(tiny_base))
    assert (error.value.hint or "").startswith(f"models are in {run}, {run}/checkpoint-4")
    (run / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"run: no adapter_model\.safetensors") as error:
        load(run, base_path=str(tiny_base))
    assert error.value.hint == f"complete adapters are in {run}/checkpoint-4"
    (run / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"run: the state of a training run \(trainer_state.json\)") as error:
        load(run, base_path=str(tiny_base))
    assert error.value.hint == f"models are in {run}/checkpoint-4"
    assert not (tmp_path / "unpickled").exists()


def test_a_shard_of_sharded_weights_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    run = llama_factory(tiny_base, tmp_path / "run", tmp_path / "unpickled")
    file = run / "adapter_model.safetensors"
    save_file({name: weight.flatten()[:0] for name, weight in load_file(file).items()}, file)
    with pytest.raises(InputError, match="one shard of sharded weights"):
        load(run, base_path=str(tiny_base))


def test_a_template_that_is_asked_for_must_exist(tiny_base: Path, tmp_path: Path) -> None:
    run = llama_factory(tiny_base, tmp_path / "run", tmp_path / "unpickled")
    with pytest.raises(InputError, match=r"the tokenizer .*run has no chat template; set chat_template: false"):
        load(run, base_path=str(tiny_base), format=PromptFormat(chat_template=True))
