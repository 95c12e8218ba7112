import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3MoeConfig

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch
from guardreasoner.model.loading import FORMAT_FILE
from guardreasoner.model.lora import LoRA
from guardreasoner.prompts import PromptFormat
from guardreasoner.tasks import GUARD_TASKS
from tests.support.architectures import make_model_folder
from tests.support.tiny import batch_of, examples, load, make_tiny_base, naive_logps


def naive(backbone: Backbone, count: int = 5) -> Tensor:
    """Log-probabilities of ``batch_of`` from one plain forward pass a sequence, in the batch's order."""
    pairs = examples(backbone.prompt_tokenizer, count)
    rows = [(pair.prompt, pair.completions[number]) for number in (0, 1) for pair in pairs]
    with torch.no_grad():
        return torch.cat([naive_logps(backbone.network, prompt, completion) for prompt, completion in rows])


def logits(network: Any, batch: Batch) -> Tensor:
    with torch.no_grad():
        return network.eval()(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[0]


def test_the_output_layer_sees_completion_tokens_only(tiny_base: Path) -> None:
    backbone = load(tiny_base)
    shapes = []
    backbone.network.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: shapes.append((inputs[0].shape[0], output.shape))
    )
    batch = batch_of(backbone.prompt_tokenizer)
    assert backbone.completion_logps(batch).shape == batch.targets.shape
    assert shapes == [(len(batch.targets), batch.targets.shape)]  # one input and one output per target, no logits


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Llama", {}),
        ("Qwen3", {}),
        ("Mistral", {"sliding_window": 24}),
        ("Gemma", {}),
        ("Phi3", {}),
    ],
)
def test_logps_are_those_of_full_logits(name: str, changes: dict[str, Any], tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(make_model_folder(name, tiny_base, tmp_path / name, **changes), double=True)
    found = backbone.completion_logps(batch_of(backbone.prompt_tokenizer))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.detach(), naive(backbone), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "changes", "fault"),
    [
        ("Phi", {}, "bias"),
        ("Gemma2", {}, "capped"),
        ("Cohere", {"logit_scale": 0.5}, "scale"),
        ("Granite", {"logits_scaling": 2.0}, "scal"),
    ],
)
def test_output_layers_with_more_than_a_weight_are_refused(
    name: str, changes: dict[str, Any], fault: str, tiny_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=fault):
        load(make_model_folder(name, tiny_base, tmp_path / name, **changes))


def test_a_saved_model_is_an_ordinary_hugging_face_model(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base)
    with torch.no_grad():
        next(backbone.parameters()).mul_(1.5)
    backbone.save(tmp_path / "out")
    batch = batch_of(backbone.prompt_tokenizer)
    for network in (AutoModelForCausalLM.from_pretrained(tmp_path / "out"), load(tmp_path / "out").network):
        assert torch.equal(logits(network, batch), logits(backbone.network, batch))
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a text")["input_ids"]
    backbone.save(tmp_path / "out")  # onto itself
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_the_adapter_is_trained(tiny_adapter: Path) -> None:
    for backbone in (load(tiny_adapter), load(tiny_adapter, gradient_checkpointing=True)):
        trained = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
        assert trained
        assert all("lora_" in name for name in trained)
        backbone.completion_logps(batch_of(backbone.prompt_tokenizer)).sum().backward()
        assert all(p.grad is not None for name, p in backbone.named_parameters() if "lora_" in name)


def test_an_adapter_reloads_with_equal_logps(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    backbone = load(tiny_adapter)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    backbone.save(tmp_path / "out")
    assert not list((tmp_path / "out").glob("model*.safetensors"))
    batch = batch_of(backbone.prompt_tokenizer)
    with torch.no_grad():
        found = load(tmp_path / "out").completion_logps(batch)
        assert torch.equal(found, backbone.completion_logps(batch))
        assert not torch.allclose(found, load(tiny_base).completion_logps(batch), atol=1e-2)
    torch.testing.assert_close(found.double(), naive(backbone), rtol=1e-4, atol=1e-4)


def test_a_new_adapter_changes_nothing_yet(tiny_base: Path) -> None:
    batch = batch_of(load(tiny_base).prompt_tokenizer)
    with torch.no_grad():
        plain, with_adapter = (load(tiny_base, lora=lora).completion_logps(batch) for lora in (None, LoRA(r=2)))
    assert torch.equal(plain, with_adapter)


def test_an_adapter_on_another_base_is_refused(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    load(base, lora=LoRA(r=2)).save(tmp_path / "adapter")
    weights = load_file(base / "model.safetensors")
    save_file({name: value + 0.001 for name, value in weights.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="has changed since this adapter was trained"):
        load(tmp_path / "adapter")


def test_another_rank_than_the_adapter_has_is_refused(tiny_adapter: Path) -> None:
    with pytest.raises(InputError, match=r"r 2 and alpha 4, but model\.backbone\.lora sets r 8"):
        load(tiny_adapter, lora=LoRA(r=8))


def test_an_adapter_on_the_output_layer_is_refused(tiny_base: Path) -> None:
    # completion_logps reads the layer's own weight, so such an adapter would never be trained
    with pytest.raises(InputError, match=r"lm_head|output layer"):
        load(tiny_base, lora=LoRA(r=2, target_modules=["q_proj", "lm_head"]))


@pytest.mark.parametrize("lora", [LoRA(target_modules=["nope"]), LoRA(r=0)], ids=["no such module", "rank 0"])
def test_an_adapter_that_peft_refuses_is_one_line(lora: LoRA, tiny_base: Path) -> None:
    with pytest.raises(InputError, match=r"^model.backbone.lora: .*$"):
        load(tiny_base, lora=lora)


@pytest.mark.parametrize("kind", ["tiny_base", "tiny_adapter"])
def test_missing_weights_are_refused(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = shutil.copytree(request.getfixturevalue(kind), tmp_path / "model")
    file = next(folder.glob("*.safetensors"))
    weights = load_file(file)
    gone = next(name for name in weights if "layers.1" in name)
    save_file({name: value for name, value in weights.items() if name != gone}, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights are missing.*layers\.1"):
        load(folder)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    absent = Backbone(str(tmp_path / "absent"))
    for use in (absent.load, lambda: absent.prompt_tokenizer):
        with pytest.raises(InputError, match="absent: no such model folder"):
            use()
    with pytest.raises(InputError, match="not a model folder"):
        load(tmp_path)


def test_the_prompt_format_travels_with_the_model(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "plain")
    (tmp_path / "plain" / FORMAT_FILE).unlink()
    assert Backbone(str(tmp_path / "plain")).prompt_tokenizer.format == PromptFormat()
    own = PromptFormat(tasks=GUARD_TASKS[:1], opening="Is it bad?")
    load(tmp_path / "plain", format=own).save(tmp_path / "own")
    assert json.loads((tmp_path / "own" / FORMAT_FILE).read_text())["format"]["opening"] == "Is it bad?"
    assert Backbone(str(tmp_path / "own")).prompt_tokenizer.format == own
    assert Backbone(str(tmp_path / "own"), format=own).prompt_tokenizer.format == own
    with pytest.raises(InputError, match=r"model\.backbone\.format differs"):
        _ = Backbone(str(tmp_path / "own"), format=PromptFormat()).prompt_tokenizer
    without_tasks = PromptFormat(opening="Is it bad?")  # as the config of a later stage has it
    for tasks in (None, list(own.tasks)):
        assert Backbone(str(tmp_path / "own"), format=without_tasks, tasks=tasks).prompt_tokenizer.format == own
    with pytest.raises(InputError, match=r"model\.backbone\.format differs"):
        _ = Backbone(str(tmp_path / "own"), format=PromptFormat(GUARD_TASKS[1:], "Is it bad?")).prompt_tokenizer


def test_fingerprints_tell_weights_apart(tiny_base: Path, tmp_path: Path) -> None:
    same = shutil.copytree(tiny_base, tmp_path / "same")
    assert Backbone(str(same)).weights_fingerprint() == Backbone(str(tiny_base)).weights_fingerprint()
    other = load(tiny_base)
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1e-3
    other.save(tmp_path / "other")
    assert Backbone(str(tmp_path / "other")).weights_fingerprint() != Backbone(str(tiny_base)).weights_fingerprint()


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(
        tmp_path_factory.mktemp("wide") / "base", hidden_size=64
    )  # blocks of 64 weights are quantized


def test_four_bit_adapters_train_save_and_reload(wide_base: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = load(wide_base, lora=LoRA(r=2, dropout=0.0), quantization="4bit")
    kinds = {type(module).__name__ for module in backbone.modules()}
    assert "Linear4bit" in kinds
    batch = batch_of(backbone.prompt_tokenizer, 2)
    before = backbone.completion_logps(batch)
    # coarse weights, but still the same model
    full = load(wide_base).completion_logps(batch)
    assert 0 < (before - full).abs().mean() < 0.5 * full.abs().mean()
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=0.02)
    for _ in range(2):
        optimizer.zero_grad()
        (-backbone.completion_logps(batch).mean()).backward()
        optimizer.step()
    after = backbone.completion_logps(batch)
    assert after.mean() > before.mean()
    backbone.save(tmp_path / "adapter")
    again = load(tmp_path / "adapter", quantization="4bit").completion_logps(batch)
    torch.testing.assert_close(again, after, rtol=1e-5, atol=1e-5)


def test_four_bit_weights_without_an_adapter_are_not_trained(wide_base: Path) -> None:
    assert not any(parameter.requires_grad for parameter in load(wide_base, quantization="4bit").parameters())


@pytest.mark.slow
def test_sharded_weights_give_the_same_log_probabilities_and_gradients(tiny_base: Path) -> None:
    root = Path(__file__).parents[2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(root / "tests/support/sharded.py"), str(tiny_base)],
            env={**environment, "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [output.splitlines()[-1] for output in outputs] == ["equal", "equal"], outputs


def test_mixture_of_experts_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "moe"))
    config = Qwen3MoeConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=16,
        moe_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(InputError, match=r"moe: mixture-of-experts models \(qwen3_moe\) are not supported"):
        Backbone(str(folder)).load()
