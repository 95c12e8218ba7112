"""Prediction folders to rate, and sessions on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guardreasoner.prompts import answer_block, render
from guardreasoner.records import Record, write_jsonl
from guardreasoner.review.cases import make_cases
from guardreasoner.review.ratings_file import RatingsFile
from guardreasoner.review.session import Session
from guardreasoner.sources.named_predictions import read_named_predictions
from guardreasoner.tasks import GUARD_TASKS

FIRST, SECOND = "Zebrafish-1B", "Quokka-3B"
"""Names that occur nowhere else."""

GOLD = ("harmful", "unharmful")
VERDICTS = {"H": "harmful", "U": "unharmful"}


def write_run(
    folder: Path, said: str, prompts: Sequence[str] = (), texts: Sequence[str] = (), hard: Sequence[int] = ()
) -> Path:
    """Write predictions of one model.

    Args:
        folder: where to.
        said: by record a letter, the verdict on the request: H, U, or - for none. Gold labels alternate, harmful first.
        prompts: of the first records; the others have one of their own.
        texts: reasoning of the first records.
        hard: records of the hard set.
    """
    rows: dict[str, list[dict[str, Any]]] = {"home": [], "away": []}
    samples = []
    for number, letter in enumerate(said):
        benchmark, label = "home" if number % 3 < 2 else "away", GOLD[number % 2]
        prompt = prompts[number] if number < len(prompts) else f"Prompt {number}."
        record = Record(f"{benchmark}/{number}", prompt, "Sure." if number % 2 else None, {"request": label})
        reasoning = texts[number] if number < len(texts) else f"{folder.name.upper()[:1]}: reasoning {number}."
        block = answer_block({"request": VERDICTS[letter]}, GUARD_TASKS) if letter in VERDICTS else ""
        predict = f"{reasoning}\n\n{block}"
        row = {"record_id": record.id, "labels": {"request": label}, "predict": predict}
        rows[benchmark].append(row | {"prompt": render(record, GUARD_TASKS), "label": label})
        if number in hard:
            samples.append(row | {"index": 0, "seed": 0})
    for benchmark, lines in rows.items():
        if lines:
            write_jsonl(folder / benchmark / "generated_predictions.jsonl", lines)
    if samples:
        write_jsonl(folder / "home" / "hard_samples.jsonl", samples)
    return folder


def two_runs(folder: Path, **of_both: Any) -> list[str]:
    """Return the words for two runs on six records: two flipped (0, 1), one unparsed (2)."""
    return [
        f"{FIRST}={write_run(folder / 'one', 'HUHUHU', hard=(0, 1), **of_both)}",
        f"{SECOND}={write_run(folder / 'two', 'UH-UHU', **of_both)}",
    ]


def open_session(folder: Path, words: Sequence[str], rater: str = "ann", **how: Any) -> Session:
    """Return a session; its file is ``ratings.jsonl`` in the folder, and stays open until it is closed."""
    return Session(
        make_cases(read_named_predictions(words, "review"), rater, **how), RatingsFile(folder / "ratings.jsonl"), rater
    )
