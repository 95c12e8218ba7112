"""Prepares real prompts with the lengths of real outputs, and a model of the requested size."""

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Rollout
from peers.real_pairs import hash_order, make_base, read_predictions

WEIGHT_SCALE = 5.0
"""Factor on the random weights; without it, greedy outputs repeat one token, and comparing them shows little."""


def prepare(folder: Path, predictions: Path, arguments: Any) -> dict[str, str]:
    """Write a model, unless one is given, and the prompts, each with the lengths of the outputs to sample.

    Two outputs per record are published. A prompt's lengths are those of its own outputs, followed by those of the
    next prompts in hash order.

    Args:
        folder: Folder to write.
        predictions: Folder of the published predictions.
        arguments: Flags: ``prompts``, ``k``, ``limit`` (of a prompt), ``max_new_tokens``, ``base`` (a model folder to
            measure; None makes one) and those of ``make_base``.

    Returns:
        Paths of ``model`` and ``prompts``; the longest prompt comes first.

    Raises:
        InputError: The predictions are missing, or too few prompts and outputs are short enough.
    """
    from guardreasoner.model.backbone import Backbone

    records, rollouts = read_predictions(predictions)
    base = arguments.base
    if base is None:
        base = folder / "base"
        make_base(base, records, rollouts, arguments)
        scale_weights(base)
    eligible = short_enough(Backbone(str(base)).prompt_tokenizer, records, rollouts, arguments)
    chosen = list(islice(eligible, arguments.prompts))
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


def short_enough(
    prompt_tokenizer: Any, records: list[Record], rollouts: list[Rollout], arguments: Any
) -> Iterator[tuple[str, list[int], list[int]]]:
    """Yield record id, prompt ids and output lengths of the records within the limits, in hash order."""
    texts = defaultdict(list)
    for rollout in rollouts:
        texts[rollout.record_id].append(rollout.completion)
    for record in sorted(records, key=lambda record: hash_order(record.id)):
        ids = prompt_tokenizer.prompt(record)
        lengths = [len(completion) for completion in prompt_tokenizer.completions(texts[record.id])]
        lengths = [length for length in lengths if length <= arguments.max_new_tokens]
        if len(ids) <= arguments.limit and lengths:
            yield record.id, ids, lengths


def scale_weights(base: Path) -> None:
    """Multiply the random weights of the layers by ``WEIGHT_SCALE``."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if ".layers." in name and weight.dim() == 2:
                weight.mul_(WEIGHT_SCALE)
    network.save_pretrained(base)
