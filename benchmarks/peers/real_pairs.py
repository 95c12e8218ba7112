"""Prepares real pairs, mined from the published predictions of two models, and a model of the requested size."""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import Pair, Record, Rollout

MODELS = ("1B", "3B")
"""Prediction folders, one per model; pairs come from records on which the two models disagree."""


def prepare(folder: Path, predictions: Path, arguments: Any) -> dict[str, str]:
    """Write a model, its adapter if one is trained, and the examples.

    Args:
        folder: Folder to write.
        predictions: Folder of the published predictions.
        arguments: Flags: ``stage``, ``pairs``, ``limit``, ``instruction_tokens``, ``lora``, ``base`` (a model folder to
            train; None makes one) and those of :func:`make_base`.

    Returns:
        Paths of ``model``, ``base`` and ``examples``.

    Raises:
        InputError: The predictions are missing, or too few pairs are short enough.
    """
    from guardreasoner.model.backbone import Backbone
    from guardreasoner.model.lora import LoRA
    from peers.policy_instruction import policy_tokens, with_instruction

    base = arguments.base
    if base is None:
        base = folder / "base"
        make_base(base, *read_predictions(predictions), arguments)
    tokenizer = Backbone(str(base)).prompt_tokenizer
    instruction = policy_tokens(tokenizer, arguments.instruction_tokens)
    examples = []
    for row in tokenized_pairs(predictions, tokenizer, embedded=arguments.base is not None):
        prompt = with_instruction(row["prompt"], instruction, tokenizer)
        ids = {**row, "prompt": prompt, "completions": row["completions"][: 1 if arguments.stage == "rsft" else 2]}
        if length(ids) <= arguments.limit:
            examples.append(ids)
    examples.sort(key=lambda example: hash_order(example["id"]))
    if len(examples) < arguments.pairs:
        raise InputError(f"--pairs: only {len(examples)} pairs have at most {arguments.limit} tokens")
    (folder / "examples.json").write_text(json.dumps(examples[: arguments.pairs]))
    model = base
    if arguments.lora:
        import torch

        torch.manual_seed(0)
        model = folder / "adapter"
        adapted = Backbone(str(base), lora=LoRA(r=arguments.lora, alpha=2 * arguments.lora, dropout=0.0))
        adapted.load()
        adapted.save(model)
    return {"model": str(model), "base": str(base), "examples": str(folder / "examples.json")}


def tokenized_pairs(predictions: Path, prompt_tokenizer: Any, embedded: bool = True) -> list[dict[str, Any]]:
    """Return the token ids of real pairs: id, prompt, and the right and the wrong completion.

    Args:
        predictions: Folder of the published predictions.
        prompt_tokenizer: Tokenizer with the prompt format.
        embedded: If the folder is missing, pair the target of each record of the embedded corpus with that of the next.

    Raises:
        InputError: The predictions are missing and ``embedded`` is false.
    """
    if predictions.is_dir() or not embedded:
        pairs = [
            (pair.record, [pair.chosen.completion, pair.rejected.completion])
            for pair in mine_pairs(*read_predictions(predictions))
        ]
    else:
        from guardreasoner.sources.embedded import Embedded

        records = list(Embedded().records("train"))
        target = prompt_tokenizer.format.target
        pairs = [(record, [target(record), target(other)]) for record, other in pairwise(records)]
    return [
        {
            "id": record.id,
            "prompt": prompt_tokenizer.prompt(record),
            "completions": prompt_tokenizer.completions(texts),
        }
        for record, texts in pairs
    ]


def read_predictions(predictions: Path) -> tuple[list[Record], list[Rollout]]:
    """Return the published records with one output of each model.

    Raises:
        InputError: The predictions are missing.
    """
    from guardreasoner.sources.rollouts import read_rollout_folders

    folders = [predictions / name for name in MODELS]
    if missing := [path for path in folders if not path.is_dir()]:
        raise InputError(f"--predictions: {missing[0]}: no such folder of published predictions")
    records, rollouts = read_rollout_folders(folders)
    return list(records), list(rollouts)


def mine_pairs(records: Sequence[Record], rollouts: Sequence[Rollout]) -> list[Pair]:
    """Return one pair for each record with a right and a wrong output."""
    from guardreasoner.mining import Pairing, mine
    from guardreasoner.tasks import GUARD_TASKS

    return list(mine(records, rollouts, GUARD_TASKS, Pairing()).pairs)


def length(example: dict[str, Any]) -> int:
    """Return the tokens of an example's prompt and longest completion."""
    return len(example["prompt"]) + max(map(len, example["completions"]))


def tokens(example: dict[str, Any]) -> int:
    """Return the tokens of an example's rows, counting the prompt once per completion."""
    return sum(len(example["prompt"]) + len(completion) for completion in example["completions"])


def fingerprint(rows: Iterable[Sequence[int]]) -> str:
    """Return a hash of rows of ids that does not depend on their order."""
    return hashlib.sha256(json.dumps(sorted(map(list, rows))).encode()).hexdigest()[:16]


def rows_of(examples: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Return the rows of plain training: prompt and completion, for every completion."""
    return [[*example["prompt"], *completion] for example in examples for completion in example["completions"]]


def hash_order(record_id: str) -> bytes:
    """Return a hash of the record id as a sort key, so that the first records are a random sample."""
    return hashlib.sha256(record_id.encode()).digest()


def make_base(base: Path, records: Sequence[Record], rollouts: Sequence[Rollout], arguments: Any) -> None:
    """Make a model with random weights and a tokenizer trained on real texts.

    A vocabulary above 12,000 only enlarges the embedding.

    Args:
        base: Model folder to write.
        records: The conversations.
        rollouts: Their outputs.
        arguments: Flags: ``hidden``, ``layers``, ``vocabulary``, and ``texts``, the number of outputs to train on.
    """
    from transformers import AutoModelForCausalLM

    from guardreasoner.cli.commands.base_model import make_base_model
    from guardreasoner.prompts import parse
    from guardreasoner.tasks import GUARD_TASKS

    by_id = {record.id: record for record in records}
    training_records = []
    for rollout in rollouts[: arguments.texts]:
        labels = {task: label for task, label in parse(rollout.completion, GUARD_TASKS).items() if label}
        if labels:
            training_records.append(replace(by_id[rollout.record_id], reasoning=rollout.completion, labels=labels))
    heads = max(2, arguments.hidden // 64)
    with contextlib.redirect_stdout(io.StringIO()):
        make_base_model(
            str(base),
            training_records,
            vocabulary=min(arguments.vocabulary, 12_000),
            hidden_size=arguments.hidden,
            intermediate_size=arguments.hidden * 11 // 4,
            layers=arguments.layers,
            heads=heads,
            kv_heads=heads // 2,
            max_length=4096,
        )
    network = AutoModelForCausalLM.from_pretrained(base)
    if arguments.vocabulary > network.config.vocab_size:
        network.resize_token_embeddings(arguments.vocabulary, mean_resizing=False)
        network.save_pretrained(base)
