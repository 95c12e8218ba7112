"""Prediction folders to rate, and review sessions on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guardreasoner.prompts import answer_block, render
from guardreasoner.records import Record, write_jsonl
from guardreasoner.review.items import make_review_set
from guardreasoner.review.ratings_file import RatingsFile
from guardreasoner.review.session import Session
from guardreasoner.sources.named_predictions import read_named_predictions
from guardreasoner.tasks import GUARD_TASKS

FIRST, SECOND = "Zebrafish-1B", "Quokka-3B"
"""Names that occur nowhere else."""

GOLD = ("harmful", "unharmful")
LABEL_BY_LETTER = {"H": "harmful", "U": "unharmful"}


def write_run(
    folder: Path, verdicts: str, prompts: Sequence[str] = (), texts: Sequence[str] = (), hard: Sequence[int] = ()
) -> Path:
    """Write predictions of one model. Gold labels alternate, harmful first.

    Args:
        folder: folder to write to.
        verdicts: verdict on the request of each record: H, U, or - for none.
        prompts: prompts of the first records; the others get a default prompt.
        texts: reasoning of the first records; the others get a default reasoning.
        hard: numbers of the records in the hard set.
    """
    rows: dict[str, list[dict[str, Any]]] = {"home": [], "away": []}
    samples = []
    for number, letter in enumerate(verdicts):
        benchmark, label = "home" if number % 3 < 2 else "away", GOLD[number % 2]
        prompt = prompts[number] if number < len(prompts) else f"Prompt {number}."
        record = Record(f"{benchmark}/{number}", prompt, "Sure." if number % 2 else None, {"request": label})
        reasoning = texts[number] if number < len(texts) else f"{folder.name.upper()[:1]}: reasoning {number}."
        known = letter in LABEL_BY_LETTER
        block = answer_block({"request": LABEL_BY_LETTER[letter]}, GUARD_TASKS) if known else ""
        row = {"record_id": record.id, "labels": {"request": label}, "predict": f"{reasoning}\n\n{block}"}
        rows[benchmark].append(row | {"prompt": render(record, GUARD_TASKS), "label": label})
        if number in hard:
            samples.append(row | {"index": 0, "seed": 0})
    for benchmark, benchmark_rows in rows.items():
        if benchmark_rows:
            write_jsonl(folder / benchmark / "generated_predictions.jsonl", benchmark_rows)
    if samples:
        write_jsonl(folder / "home" / "hard_samples.jsonl", samples)
    return folder


def two_runs(folder: Path, **arguments: Any) -> list[str]:
    """Write two runs on six records, two flipped (0, 1) and one unparsed (2); return their command-line arguments."""
    return [
        f"{FIRST}={write_run(folder / 'one', 'HUHUHU', hard=(0, 1), **arguments)}",
        f"{SECOND}={write_run(folder / 'two', 'UH-UHU', **arguments)}",
    ]


def open_session(folder: Path, runs: Sequence[str], rater: str = "ann", **arguments: Any) -> Session:
    """Return a session whose file is ``ratings.jsonl`` in the folder; the caller closes the file."""
    review_set = make_review_set(read_named_predictions(runs, "review"), rater, **arguments)
    return Session(review_set, RatingsFile(folder / "ratings.jsonl"), rater)
