"""Real prompts with the lengths of real outputs, and a model of the wanted shape."""

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Rollout
from peers.real_pairs import make_base, place, read_predictions

WIDER = 5.0
"""Factor on the layers' random weights; without it a greedy output is one token repeated, which compares little."""


def prepare(folder: Path, predictions: Path, arguments: Any) -> dict[str, str]:
    """Write a model and the prompts, each with the length of every output that is to be sampled.

    Two outputs a record are published. The first lengths of a prompt are those of its own, the next ones those of the
    prompts that follow it in an order by hash.

    Args:
        folder: where they go.
        predictions: folder of the published predictions.
        arguments: ``prompts``, ``k``, ``limit`` (of a prompt), ``max_new_tokens``, and what ``make_base`` wants.

    Returns:
        Paths of ``model`` and ``prompts``; the longest prompt is the first.

    Raises:
        InputError: no predictions there, or too few that are short enough.
    """
    from guardreasoner.model.backbone import Backbone

    records, rollouts = read_predictions(predictions)
    base = folder / "base"
    make_base(base, records, rollouts, arguments)
    widen(base)
    fitting = within(Backbone(str(base)).prompt_tokenizer, records, rollouts, arguments)
    chosen = list(islice(fitting, arguments.prompts))
    if len(chosen) < arguments.prompts:
        raise InputError(f"--prompts: only {len(chosen)} prompts and outputs are within the limits")
    lengths = [length for _, _, own in chosen for length in own] * (arguments.k + 1)
    starts = [sum(len(own) for _, _, own in chosen[:number]) for number in range(len(chosen))]
    rows = [
        {"id": name, "prompt": ids, "lengths": lengths[start : start + arguments.k]}
        for (name, ids, _), start in zip(chosen, starts, strict=True)
    ]
    rows.sort(key=lambda row: -len(row["prompt"]))
    (folder / "prompts.json").write_text(json.dumps(rows))
    return {"model": str(base), "prompts": str(folder / "prompts.json")}


def within(
    prompt_tokenizer: Any, records: list[Record], rollouts: list[Rollout], arguments: Any
) -> Iterator[tuple[str, list[int], list[int]]]:
    """Yield id, prompt and lengths of its outputs for what is short enough, in an order by hash."""
    texts = defaultdict(list)
    for rollout in rollouts:
        texts[rollout.record_id].append(rollout.completion)
    for record in sorted(records, key=lambda record: place(record.id)):
        ids = prompt_tokenizer.prompt(record)
        lengths = [len(one) for one in prompt_tokenizer.completions(texts[record.id])]
        lengths = [length for length in lengths if length <= arguments.max_new_tokens]
        if len(ids) <= arguments.limit and lengths:
            yield record.id, ids, lengths


def widen(base: Path) -> None:
    """Widen the random weights of a model's layers."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if ".layers." in name and weight.dim() == 2:
                weight.mul_(WIDER)
    network.save_pretrained(base)
