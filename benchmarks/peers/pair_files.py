"""Writes folders of records and rollouts for HS-DPO: any number of synthetic pairs, or real pairs."""

import contextlib
import io
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout, write_jsonl
from guardreasoner.sources.embedded import Embedded
from guardreasoner.tasks import GUARD_TASKS
from peers.real_pairs import hash_order, length, make_base, mine_pairs, read_predictions

OUTPUTS = 4
"""Outputs per record; 1 to 3 of them are wrong, so that every record is hard."""

WORDS = ("The", "user", "asks", "for", "help", "with", "this", "act")
"""Vocabulary of the synthetic reasoning."""


def write_synthetic(folder: Path, count: int, seed: int = 0) -> None:
    """Write short requests with outputs that give one pair per record.

    Args:
        folder: Folder to write.
        count: Number of records.
        seed: Seed of the outputs.
    """
    rng = Random(seed)
    folder.mkdir()
    write_jsonl(folder / "records.jsonl", numbered(count))
    write_jsonl(folder / "rollouts.jsonl", (rollout for record in numbered(count) for rollout in outputs(record, rng)))


def numbered(count: int) -> Iterator[Record]:
    """Yield requests of the embedded corpus repeatedly, each with a number that makes it unique."""
    corpus = Embedded(train=min(count, 1200)).records("train")
    for number, record in enumerate(islice(cycle(corpus), count)):
        prompt, labels = f"Case {number}. {record.prompt}", {"request": record.labels["request"]}
        yield Record(f"made/{number:06}", prompt, labels=labels, source="made")


def outputs(record: Record, rng: Random) -> Iterator[Rollout]:
    """Yield the outputs of a record, wrong ones first."""
    gold = record.gold()
    wrong = {t.name: next(label for label in t.labels if label != gold[t.name]) for t in GUARD_TASKS if t.name in gold}
    errors = rng.randint(1, OUTPUTS - 1)
    for index in range(OUTPUTS):
        text = " ".join(rng.choices(WORDS, k=rng.randint(4, 12)))
        block = answer_block(wrong if index < errors else gold, GUARD_TASKS)
        yield Rollout(record.id, "made", "made", index, 0, f"{text}.\n\n{block}")


def make_tiny_base(base: Path) -> None:
    """Make a model of hidden size 64 with two layers and a short instruction."""
    from guardreasoner.cli.commands.base_model import make_base_model

    with contextlib.redirect_stdout(io.StringIO()):
        make_base_model(
            str(base),
            Embedded(train=300).records("train"),
            vocabulary=1000,
            opening="Judge.",
            hidden_size=64,
            intermediate_size=192,
            layers=2,
            heads=2,
            kv_heads=1,
        )


def write_real(folder: Path, base: Path, predictions: Path, arguments: Any) -> None:
    """Write real records with a right and a wrong output each, and make the model.

    Args:
        folder: Folder of the records.
        base: Folder of the model.
        predictions: Folder of the published predictions.
        arguments: Flags: ``real_pairs``, ``limit`` and those of ``make_base``.

    Raises:
        InputError: The predictions are missing, or too few pairs are short enough.
    """
    from guardreasoner.model.backbone import Backbone

    records, rollouts = read_predictions(predictions)
    make_base(base, records, rollouts, arguments)
    prompt_tokenizer = Backbone(str(base)).prompt_tokenizer
    chosen = []
    for pair in sorted(mine_pairs(records, rollouts), key=lambda pair: hash_order(pair.record.id)):
        texts = [pair.chosen.completion, pair.rejected.completion]
        ids = {"prompt": prompt_tokenizer.prompt(pair.record), "completions": prompt_tokenizer.completions(texts)}
        if length(ids) <= arguments.limit:
            chosen.append(pair)
    if len(chosen) < arguments.real_pairs:
        raise InputError(f"--real-pairs: only {len(chosen)} pairs have at most {arguments.limit} tokens")
    chosen = chosen[: arguments.real_pairs]
    folder.mkdir()
    write_jsonl(folder / "records.jsonl", (pair.record for pair in chosen))
    write_jsonl(folder / "rollouts.jsonl", (rollout for pair in chosen for rollout in (pair.chosen, pair.rejected)))
