"""Makes model folders of exact shapes, adapters on them, and examples to train on."""

import json
import random
from pathlib import Path
from typing import Any

from peers.machine import setup_torch
from peers.process import read_job
from peers.random_model import make_llama, make_tokenizer

from gpu.jobs import Model

SHARED = 64
"""Tokens that all prompts of random ids share at their start, as the paper's prompts share the instruction."""
FIRST = 16
"""First id that is drawn; special tokens come before it."""
K = 4
"""Outputs decoded for each prompt."""


def make(job: Model) -> dict[str, Any]:
    """Write the folder and return the number of parameters."""
    setup_torch(job.device, job.threads)
    folder = Path(job.folder)
    base = folder / "base"
    folder.mkdir(parents=True, exist_ok=True)
    if job.shape:
        make_tokenizer(folder / "tokenizer")
        make_llama(base, folder / "tokenizer", job.shape, "bfloat16", job.device)
        examples = random_examples(job)
    else:
        from guardreasoner.model.pretrained import write_pretrained

        write_pretrained(job.pretrained, base)
        examples = real_examples(job, base)
    for name, count in (("rsft", 1), ("hsdpo", 2)):
        rows = [{**row, "completions": row["completions"][:count]} for row in examples[: job.examples]]
        (folder / f"{name}.json").write_text(json.dumps(rows))
    prompts = [
        {"id": row["id"], "prompt": row["prompt"], "lengths": [len(row["completions"][0])] * K}
        for row in examples[: max(1, job.outputs // K)]
    ]
    prompts.sort(key=lambda row: -len(row["prompt"]))
    (folder / "prompts.json").write_text(json.dumps(prompts))
    return {"parameters": add_adapter(base, folder / "adapter"), "examples": len(examples)}


def random_examples(job: Model) -> list[dict[str, Any]]:
    """Return pairs of random ids, whose lengths are drawn uniformly.

    A prompt has up to a third of the longest length beside the shared tokens, a completion a fifth to two fifths of it.
    """
    draw = random.Random(0)
    vocabulary = job.shape["vocab_size"]

    def ids(count: int) -> list[int]:
        return [draw.randrange(FIRST, vocabulary) for _ in range(count)]

    opening = ids(min(SHARED, job.longest // 8))
    return [
        {
            "id": str(number),
            "prompt": opening + ids(draw.randint(4, job.longest // 3)),
            "completions": [ids(draw.randint(job.longest // 5, job.longest * 2 // 5)) for _ in range(2)],
        }
        for number in range(max(job.examples, job.outputs // K))
    ]


def real_examples(job: Model, base: Path) -> list[dict[str, Any]]:
    """Return real pairs of two published models; without the predictions, pairs of the embedded corpus."""
    from peers.real_pairs import hash_order, length, tokenized_pairs

    from guardreasoner.model.backbone import Backbone

    rows = tokenized_pairs(Path(job.predictions), Backbone(str(base)).prompt_tokenizer)
    rows = sorted((row for row in rows if length(row) <= job.longest), key=lambda row: hash_order(row["id"]))
    return rows[: max(job.examples, job.outputs // K)]


def add_adapter(base: Path, folder: Path) -> int:
    """Write an adapter of rank 16 on all linear layers; return the parameters of the base model."""
    import torch

    from guardreasoner.model.backbone import Backbone
    from guardreasoner.model.lora import LoRA

    torch.manual_seed(0)
    backbone = Backbone(str(base), lora=LoRA(r=16, alpha=32, dropout=0.0), dtype="bfloat16")
    backbone.load()
    backbone.save(folder)
    return sum(weight.numel() for name, weight in backbone.named_parameters() if "lora_" not in name)


if __name__ == "__main__":
    job, result_path = read_job(Model)
    result_path.write_text(json.dumps(make(job)))
