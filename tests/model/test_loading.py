"""Model folders that would give wrong numbers are refused; what is accepted gives those of transformers and peft."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.loading import (
    FORMAT_FILE,
    embedding_rows,
    files_fingerprint,
    load_network,
    require_supported,
    sampled_fingerprint,
)
from guardreasoner.model.lora import LoRA
from guardreasoner.model.packing import packed
from tests.support.architectures import make_adapter, make_model_folder
from tests.support.tiny import batch_of, examples, load, make_tiny_base, naive_logps

Weights = dict[str, Tensor]
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def untied_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose output layer has weights of its own."""
    network = AutoModelForCausalLM.from_pretrained(tiny_base)
    network.config.tie_word_embeddings = False
    network.lm_head.weight = torch.nn.Parameter(network.lm_head.weight.detach() + 0.05)
    folder = tmp_path_factory.mktemp("untied") / "base"
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


def with_value(value: float) -> Callable[[Weights], Weights]:
    def change(weights: Weights) -> Weights:
        weights[UP][3, 5] = value
        return weights

    return change


WRONG_WEIGHTS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "nan": (with_value(float("nan")), f"NaN or infinite values, first {UP}"),
    "infinite": (with_value(float("-inf")), f"NaN or infinite values, first {UP}"),
    "extra": (lambda weights: weights | {"v_head.weight": torch.ones(3)}, r"not part of the architecture.*v_head"),
    "another layer": (
        lambda weights: weights | {UP.replace("1", "7"): weights[UP].clone()},
        r"not part of the architecture.*layers\.7",
    ),
    "missing": (lambda weights: {n: w for n, w in weights.items() if n != UP}, f"missing.*{UP}"),
    "shape": (lambda weights: weights | {UP: torch.ones(3, 3)}, f"other shapes than the config says, first {UP}"),
}


@pytest.mark.parametrize("quantization", [None, "4bit"])
@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_wrong_weights_are_refused_by_name(name: str, quantization: Any, tiny_base: Path, tmp_path: Path) -> None:
    change, message = WRONG_WEIGHTS[name]
    folder = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    weights = {key: weight.clone() for key, weight in load_file(folder / "model.safetensors").items()}
    save_file(change(weights), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=message):
        load(folder, quantization=quantization)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="the mapped files of a process are read from /proc")
def test_quantized_weights_do_not_keep_the_file_mapped(untied_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(untied_base, tmp_path / "model"))  # no other test has loaded it
    network = load_network(str(folder), torch.float32, "4bit")
    assert not [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    expected = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        torch.testing.assert_close(network.get_parameter(name).detach(), expected[name], rtol=0, atol=0)


def test_a_tied_output_layer_may_be_stored_too(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_pickles_are_refused_whatever_their_name(name: str, tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    weights = {key: weight.clone() for key, weight in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / name)
    with pytest.raises(InputError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "changes", "is_plain"),
    [
        ("Gemma3Text", {}, True),
        ("Gemma3Text", {"final_logit_softcapping": 30.0}, False),
        ("Cohere", {"logit_scale": 1.0}, True),
        ("NanoChat", {}, False),
        ("RecurrentGemma", {}, False),
        ("FalconH1", {"lm_head_multiplier": 0.5}, False),
        ("OPT", {}, True),
        ("GPT2", {}, True),
    ],
)
def test_logits_of_another_form_are_refused(
    name: str, changes: dict[str, Any], is_plain: bool, tiny_base: Path, tmp_path: Path
) -> None:
    folder = make_model_folder(name, tiny_base, tmp_path / name, **changes)
    if not is_plain:
        with pytest.raises(InputError, match="capped or scaled logits"):
            load(folder)
        return
    backbone = load(folder, double=True)
    torch.testing.assert_close(
        backbone.completion_logps(batch_of(backbone.prompt_tokenizer, 2)).detach(),
        plain_logps(AutoModelForCausalLM.from_pretrained(folder).double().eval(), backbone),
        rtol=1e-8,
        atol=1e-8,
    )


def plain_logps(network: Any, backbone: Backbone) -> Tensor:
    """Return the log-probabilities of ``batch_of`` from a network that this project has not touched."""
    pairs = examples(backbone.prompt_tokenizer, 2)
    rows = [(pair.prompt, pair.completions[number]) for number in (0, 1) for pair in pairs]
    with torch.no_grad():
        return torch.cat([naive_logps(network, prompt, completion) for prompt, completion in rows])


ADAPTERS: dict[str, dict[str, Any]] = {
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "own output layer": {"modules_to_save": ["lm_head"]},
    "own embedding and output layer": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "DoRA": {"target_modules": "all-linear", "use_dora": True},
    "rsLoRA": {"target_modules": "all-linear", "use_rslora": True},
    "bias": {"bias": "all", "lora_bias": True},
    "ranks": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2}},
}
ON_OUTPUT: dict[str, dict[str, Any]] = {
    "LoRA": {"target_modules": ["q_proj", "lm_head"]},
    "parameter": {"target_parameters": ["lm_head.weight"]},
    "tokens": {"trainable_token_indices": {"lm_head": [5, 6]}},
}


@pytest.mark.parametrize(
    ("name", "base"),
    [*((name, "tiny_base") for name in ADAPTERS), *((name, "untied_base") for name in ADAPTERS if "embed" in name)],
)
def test_adapters_of_peft_give_its_numbers(
    name: str, base: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base_folder = request.getfixturevalue(base)
    options = ADAPTERS[name]
    if "bias" in options:
        base_folder = make_model_folder("Qwen2", base_folder, tmp_path / "qwen", head_dim=8)
    folder = make_adapter(base_folder, tmp_path / "adapter", **options)
    backbone = load(folder, double=True)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), folder).double().eval()
    expected = plain_logps(plain, backbone)
    batch = batch_of(backbone.prompt_tokenizer, 2)
    torch.testing.assert_close(backbone.completion_logps(batch).detach(), expected, rtol=1e-8, atol=1e-8)
    packed_batch = packed(examples(backbone.prompt_tokenizer, 2), backbone.prompt_tokenizer.padding)
    torch.testing.assert_close(backbone.completion_logps(packed_batch).detach(), expected, rtol=1e-8, atol=1e-8)
    base_logps = plain_logps(AutoModelForCausalLM.from_pretrained(base_folder).double().eval(), backbone)
    assert not torch.allclose(expected, base_logps, atol=1e-3)


@pytest.mark.parametrize("base", ["tiny_base", "untied_base"])
@pytest.mark.parametrize("name", ON_OUTPUT)
def test_adapters_on_the_output_layer_are_refused(
    name: str, base: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = make_adapter(request.getfixturevalue(base), tmp_path / "adapter", **ON_OUTPUT[name])
    with pytest.raises(InputError, match=r"an adapter on the output layer \(lm_head") as error:
        load(folder)
    assert "merge" in (error.value.hint or "")


def test_adapters_that_do_not_fit_their_base_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tiny_base, tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    weights = {name: weight.clone() for name, weight in load_file(file).items()}
    deeper = {name.replace("layers.1", "layers.5"): weight.clone() for name, weight in weights.items()}
    save_file(weights | deeper, file)
    with pytest.raises(InputError, match=r"it adapts layer 5 \(counted from 0\), the base model has 2 layers"):
        load(folder)
    save_file({name: torch.cat([weight, weight], 1) for name, weight in weights.items()}, file)
    with pytest.raises(InputError, match=r"q_proj has 16 inputs, the adapter is for 32"):
        load(folder)
    save_file(weights | {min(weights): weights[min(weights)] * float("nan")}, file)
    with pytest.raises(InputError, match=r"NaN or infinite values, first .*lora_A"):
        load(folder)
    torch.save(weights, file.with_name("adapter_model.bin"))
    file.unlink()
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        load(folder)


def test_other_kinds_of_adapters_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tiny_base, tmp_path / "ia3", IA3Config, feedforward_modules=[])
    with pytest.raises(InputError, match="IA3"):
        load(folder)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (None, "base_model_name_or_path"),
        ("{adapter}", "is an adapter itself"),
        ("{tmp}/absent", "absent: cannot be loaded"),
    ],
)
def test_the_base_of_an_adapter_must_be_a_model(
    base: str | None, message: str, tiny_adapter: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base and base.format(adapter=tiny_adapter, tmp=tmp_path)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        load(folder)


def test_fingerprints_see_every_byte_also_of_the_base_model(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base", hidden_size=384)
    load(base, lora=LoRA(r=2)).save(tmp_path / "adapter")
    before = [files_fingerprint(str(tmp_path / name)) for name in ("base", "adapter")]
    file = base / "model.safetensors"
    content = bytearray(file.read_bytes())
    assert len(content) > 5 << 20
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    after = [files_fingerprint(str(tmp_path / name)) for name in ("base", "adapter")]
    assert before[0] != after[0]
    assert before[1] != after[1]
    with pytest.raises(InputError, match="has changed since this adapter was trained"):
        load(tmp_path / "adapter")


def test_adapters_of_earlier_versions_keep_their_base(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    content = json.loads((folder / FORMAT_FILE).read_text())
    (folder / FORMAT_FILE).write_text(json.dumps(content | {"base": sampled_fingerprint(str(tiny_base))}))
    load(folder)
    assert sampled_fingerprint("a/hub-model") == files_fingerprint("a/hub-model")


def add_tokens(folder: Path, end: bool) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    if end:
        tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.save_pretrained(folder)
    return folder


def test_ids_without_an_embedding_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = add_tokens(Path(shutil.copytree(tiny_base, tmp_path / "model")), end=True)
    assert embedding_rows(str(folder)) == 300
    with pytest.raises(InputError, match=r"first 301 \(<\|im_end\|>\); the embedding has 300 rows"):
        load(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    network.resize_token_embeddings(320)  # padded
    network.save_pretrained(folder)
    assert embedding_rows(str(folder)) == 320
    load(folder)


def test_ids_that_no_prompt_holds_need_no_embedding(tiny_base: Path, tmp_path: Path) -> None:
    # Gemma 3's tokenizer has an image token that its text models have no embedding for.
    load(add_tokens(Path(shutil.copytree(tiny_base, tmp_path / "model")), end=False))


def test_a_config_that_contradicts_itself_is_one_line(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 32}))
    with pytest.raises(InputError, match=r"model: cannot be loaded: .*not a multiple of the number of attention heads"):
        load(folder)


@pytest.mark.parametrize("change", [{"num_attention_heads": 0}, {"num_key_value_heads": 0}, {"num_hidden_layers": -1}])
def test_a_config_with_impossible_numbers_is_one_line(change: dict[str, int], tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError) as raised:
        load(folder)
    assert str(raised.value).startswith(f"{folder}: ")
    assert len(str(raised.value).splitlines()) == 1


def test_equal_adapters_have_equal_configs(tiny_base: Path, tmp_path: Path) -> None:
    names = ["v_proj", "q_proj", "up_proj", "o_proj", "k_proj", "gate_proj", "down_proj"]
    load(tiny_base, lora=LoRA(r=2, target_modules=names)).save(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(names)


def test_a_model_is_checked_under_another_default_device(tiny_base: Path) -> None:
    """Lightning makes a GPU the default device while it loads a model; "meta" is such a device without one."""
    network = load(tiny_base).network
    with torch.device("meta"):
        require_supported("base", network)
