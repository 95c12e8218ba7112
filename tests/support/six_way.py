"""Generate a CSV file with a user-defined six-way label: requests to the front desk of a building."""

import csv
import random
from pathlib import Path

TOPICS = {
    "noise": ("the drill next door", "a barking dog", "loud music at night", "the party above me"),
    "water": ("a dripping tap", "the flooded cellar", "no hot water", "a burst pipe"),
    "keys": ("a lost key", "the jammed lock", "a second fob", "a broken door handle"),
    "parcels": ("a missing parcel", "the courier at the gate", "a letter for my neighbour", "an unpaid delivery"),
    "rent": ("the late payment", "a wrong invoice", "the deposit", "a rise of the rent"),
    "other": ("the garden party", "a new plant", "the window cleaner", "a lift tour"),
}
OPENINGS = (
    "Hello, I write about",
    "Please help with",
    "Once more:",
    "I am angry about",
    "A short word on",
    "It concerns",
)
"""Openings of a request. A text may mention one topic and ask about another; the label is the topic asked about."""


def write_requests(path: Path, count: int, seed: int = 0) -> None:
    """Write distinct requests as rows ``text,label,why`` with labels 0 to 5."""
    rng = random.Random(seed)
    names = list(TOPICS)
    path.parent.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "why"])
        while len(seen) < count:
            asked, mentioned = rng.sample(names, 2)
            thing, aside = rng.choice(TOPICS[asked]), rng.choice(TOPICS[mentioned])
            text = rng.choice(
                (
                    f"{rng.choice(OPENINGS)} {thing}, flat {rng.randint(1, 40)}.",
                    f"Not {aside} this time, flat {rng.randint(1, 40)}, but {thing}.",
                    f"{rng.choice(OPENINGS)} {thing}, and never mind {aside}, flat {rng.randint(1, 40)}.",
                )
            )
            if text not in seen:
                seen.add(text)
                why = f"The user asks about {thing}. That belongs to {asked}."
                rows.writerow([text, names.index(asked), why])
