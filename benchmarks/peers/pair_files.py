"""Folders of records and rollouts that HS-DPO pairs are mined from: made ones of any number, or real ones."""

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
from peers.real_pairs import length, make_base, mined, place, read_predictions

OUTPUTS = 4
"""Outputs a record; from 1 to 3 of them are wrong, so that every record is hard."""

WORDS = ("The", "user", "asks", "for", "help", "with", "this", "act")
"""What a made output's reasoning is drawn from."""


def write_made(folder: Path, count: int, seed: int = 0) -> None:
    """Write short requests and their outputs, each record a pair.

    Args:
        folder: where they go.
        count: records.
        seed: of the outputs.
    """
    rng = Random(seed)
    folder.mkdir()
    write_jsonl(folder / "records.jsonl", numbered(count))
    write_jsonl(folder / "rollouts.jsonl", (one for record in numbered(count) for one in outputs(record, rng)))


def numbered(count: int) -> Iterator[Record]:
    """Yield requests of the embedded corpus over and over, each with a number that makes it another."""
    corpus = Embedded(train=min(count, 1200)).records("train")
    for number, record in enumerate(islice(cycle(corpus), count)):
        prompt, labels = f"Case {number}. {record.prompt}", {"request": record.labels["request"]}
        yield Record(f"made/{number:06}", prompt, labels=labels, source="made")


def outputs(record: Record, rng: Random) -> Iterator[Rollout]:
    """Yield the outputs of a record, the wrong ones first."""
    gold = record.gold()
    wrong = {t.name: next(label for label in t.labels if label != gold[t.name]) for t in GUARD_TASKS if t.name in gold}
    errors = rng.randint(1, OUTPUTS - 1)
    for index in range(OUTPUTS):
        text = " ".join(
            rng.choices(("The", "user", "asks", "for", "help", "with", "this", "act"), k=rng.randint(4, 12))
        )
        block = answer_block(wrong if index < errors else gold, GUARD_TASKS)
        yield Rollout(record.id, "made", "made", index, 0, f"{text}.\n\n{block}")


def make_tiny_base(base: Path) -> None:
    """Make a network of hidden size 64 and two layers, with a short instruction."""
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
        folder: where the records go.
        base: where the model goes.
        predictions: folder of the published predictions.
        arguments: ``real_pairs`` says how many; ``limit``, and what ``make_base`` wants.

    Raises:
        InputError: no predictions there, or too few pairs that are short enough.
    """
    from guardreasoner.model.backbone import Backbone

    records, rollouts = read_predictions(predictions)
    make_base(base, records, rollouts, arguments)
    prompt_tokenizer = Backbone(str(base)).prompt_tokenizer
    chosen = []
    for pair in sorted(mined(records, rollouts), key=lambda pair: place(pair.record.id)):
        texts = [pair.chosen.completion, pair.rejected.completion]
        ids = {"prompt": prompt_tokenizer.prompt(pair.record), "completions": prompt_tokenizer.completions(texts)}
        if length(ids) <= arguments.limit:
            chosen.append(pair)
    if len(chosen) < arguments.real_pairs:
        raise InputError(f"--real-pairs: only {len(chosen)} pairs have at most {arguments.limit} tokens")
    chosen = chosen[: arguments.real_pairs]
    folder.mkdir()
    write_jsonl(folder / "records.jsonl", (pair.record for pair in chosen))
    write_jsonl(folder / "rollouts.jsonl", (one for pair in chosen for one in (pair.chosen, pair.rejected)))
