"""Folders of runs in the layouts that LLaMA-Factory, TRL and Axolotl write, with weights of peft's own.

What each tool writes was read in its code: LLaMA-Factory's ``train/trainer_utils.py`` and ``train/callbacks.py``
(trainer_log.jsonl, train_results.json, pissa_converted), TRL's trainers (a second adapter ``ref``), and Axolotl's
``train.py`` (``save_initial_configs`` puts the base's config.json beside the adapter's) and ``merge_lora``.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.architectures import make_adapter

HUB_NAME = "meta-llama/Llama-3.2-3B-Instruct"
"""What the adapters name as their base: the tools store the name that they were given."""


LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""What the tools make of "all": the last parts of the names."""


class Alarm:
    """An object that leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def name_base(folder: Path, name: str | None = HUB_NAME) -> None:
    """Make an adapter name another base."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": name}))


def trainer_files(folder: Path, alarm: Path) -> None:
    """Write what transformers' trainer leaves beside a model; unpickling its arguments touches ``alarm``."""
    (folder / "trainer_state.json").write_text('{"global_step": 4, "epoch": 1.0, "log_history": []}')
    torch.save(Alarm(alarm), folder / "training_args.bin")
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n")


def checkpoint(folder: Path, run: Path, alarm: Path, weights: bool = True) -> Path:
    """Write a ``checkpoint-N``: the run's adapter, unless without weights, and the state of the training."""
    folder.mkdir()
    for file in run.iterdir():
        if file.is_file() and (weights or file.suffix in (".jinja", "")) and file.name != "trainer_log.jsonl":
            shutil.copyfile(file, folder / file.name)
    trainer_files(folder, alarm)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save(Alarm(alarm), folder / name)
    return folder


def llama_factory(base: Path, folder: Path, alarm: Path, **options: Any) -> Path:
    """Write the folder of ``llamafactory-cli train`` with ``finetuning_type: lora``: tokenizer, logs, checkpoints."""
    make_adapter(base, folder, **({"target_modules": LINEAR, "r": 4, "lora_alpha": 8} | options))
    name_base(folder)
    trainer_files(folder, alarm)
    (folder / "trainer_log.jsonl").write_text('{"current_steps": 4, "total_steps": 4, "loss": 0.5}\n')
    for name in ("all_results.json", "train_results.json"):
        (folder / name).write_text('{"epoch": 1.0, "train_loss": 0.5}')
    checkpoint(folder / "checkpoint-4", folder, alarm)
    return folder


def trl(base: Path, folder: Path, alarm: Path, **options: Any) -> Path:
    """Write the folder of a TRL trainer: the adapter, and its frozen copy in ``ref``; the tokenizer is left out."""
    make_adapter(base, folder, **options)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / file).unlink(missing_ok=True)
    name_base(folder)
    trainer_files(folder, alarm)
    (folder / "ref").mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(folder / file, folder / "ref" / file)
    return folder


def axolotl(base: Path, folder: Path, alarm: Path, tokens: Mapping[str, str] | None = None, **options: Any) -> Path:
    """Write the folder of ``axolotl train``: config.json beside the adapter, added tokens with resized embeddings.

    Args:
        base: base model.
        folder: folder to write.
        alarm: see :func:`trainer_files`.
        tokens: special tokens to add, such as ``{"eos_token": "<|im_end|>"}``.
        options: of the adapter, as peft's ``LoraConfig`` names them.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    network = AutoModelForCausalLM.from_pretrained(base)
    if tokens:
        tokenizer.add_special_tokens(dict(tokens))
        network.resize_token_embeddings(len(tokenizer))
    from peft import LoraConfig, get_peft_model

    saved = {"modules_to_save": ["embed_tokens", "lm_head"]} if tokens else {}
    torch.manual_seed(1)
    config: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": LINEAR} | saved | options
    adapted = get_peft_model(network, LoraConfig(**config))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    network.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    name_base(folder)
    trainer_files(folder, alarm)
    (folder / "debug.log").write_text("")
    return folder
