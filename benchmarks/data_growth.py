"""How reading, checking and tokenizing grow with the data, and what the check against benchmarks costs.

Each size runs in a process of its own, twice: from nothing, and from the cache that the first one left. Records are
drawn from a seed: prompts of 20 to 100 words, traces of 60 to 120, in JSONL, as a user would bring them. Peak memory is
that of the whole process, with torch and the tokenizer loaded.

    python benchmarks/data_growth.py                              # 1,000 to 1,000,000 records; about half an hour
    python benchmarks/data_growth.py --records 1000 10000 100000 --json growth.json
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = 20_000
TRAINING, HELD, PLANTED = 100_000, 12_000, 500
PIECES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ka",
    "le",
    "mi",
    "no",
    "pu",
    "ra",
    "se",
    "ti",
    "vo",
    "zu",
    "ar",
    "en",
    "is",
    "or",
    "un",
)


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # what a child process measures
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(start(arguments.one)))
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        growth = [measure(Path(folder), count) for count in arguments.records]
    found = contamination()
    if arguments.json:
        arguments.json.write_text(json.dumps({"growth": growth, "contamination": found}, indent=1) + "\n")


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Write ``count`` records, start on them twice, show and return the figures."""
    own = folder / str(count)
    own.mkdir()
    write_records(own / "train.jsonl", count)
    size = (own / "train.jsonl").stat().st_size
    make_tokenizer(own)
    first, second = child(own), child(own)
    (own / "train.jsonl").unlink()
    figures = {"records": count, "megabytes": size / 1e6, "first": first, "second": second}
    print(
        f"{count:>9,} records, {size / 1e6:7.1f} MB: checked in {first['check_s']:7.2f} s, tokenized in "
        f"{first['tokenize_s']:7.2f} s ({first['tokens']:,} tokens), peak {first['peak_mb']:6.0f} MB; "
        f"second start {second['tokenize_s']:5.2f} s, peak {second['peak_mb']:6.0f} MB",
        flush=True,
    )
    return figures


def child(folder: Path) -> dict[str, Any]:
    """Measure one start in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def start(folder: Path) -> dict[str, Any]:
    """Check and tokenize what is in a folder as ``fit`` does, and return seconds and peak memory."""
    from lightning.pytorch import Trainer

    from guardreasoner.model.backbone import Backbone
    from guardreasoner.sources.files import Files
    from guardreasoner.training.reasoning_data import ReasoningDataModule
    from guardreasoner.training.rsft import RSFTModule

    source = Files(train=str(folder / "train.jsonl"), validation_share=0.01)
    data = ReasoningDataModule(source, max_length=4096, cache=str(folder / "tokenised"))
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    data.trainer.strategy.connect(RSFTModule(Backbone(str(folder / "base"))))
    kept = any((folder / "tokenised").glob("*/notes.json"))
    began = time.perf_counter()
    if not kept:
        next(iter(source.records("train")))
    checked = time.perf_counter()
    data.setup("fit")
    ended = time.perf_counter()
    lengths = data.train.lengths  # type: ignore[attr-defined]
    return {
        "check_s": checked - began,
        "tokenize_s": ended - checked,
        "tokens": int(lengths.sum()),
        "examples": len(data.train) + len(data.validation),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def contamination() -> dict[str, Any]:
    """Look up training records among benchmark records; some are planted, equal in other clothes or a word changed."""
    from guardreasoner.records import Record
    from guardreasoner.sources.contamination import ContaminationIndex

    rng = random.Random(0)
    words = vocabulary()
    held = [Record(f"bench/{n}", text(rng, words, 20, 100)) for n in range(HELD)]
    records = [Record(f"train/{n}", text(rng, words, 20, 100)) for n in range(TRAINING - 2 * PLANTED)]
    planted = rng.sample(held, 2 * PLANTED)
    equal = [Record(f"equal/{n}", f"  {r.prompt.upper()}\u200b ") for n, r in enumerate(planted[:PLANTED])]
    near = [Record(f"near/{n}", changed(rng, words, r.prompt)) for n, r in enumerate(planted[PLANTED:])]
    began = time.perf_counter()
    lookup = ContaminationIndex(held)
    found = [match for record in (*records, *equal, *near) if (match := lookup.match(record))]
    seconds = time.perf_counter() - began
    caught = {kind: sum(match.record.startswith(kind) for match in found) for kind in ("equal", "near", "train")}
    print(
        f"{TRAINING:,} training against {HELD:,} benchmark records: {seconds:.1f} s; found {caught['equal']} of "
        f"{PLANTED} equal and {caught['near']} of {PLANTED} with one word changed; {caught['train']} others",
        flush=True,
    )
    return {"seconds": seconds, "found": caught, "planted": PLANTED}


def vocabulary() -> list[str]:
    """Return made-up words."""
    rng = random.Random(1)
    return ["".join(rng.choices(PIECES, k=rng.randint(1, 4))) for _ in range(WORDS)]


def text(rng: random.Random, words: list[str], least: int, most: int) -> str:
    """Return a text of so many words."""
    return " ".join(rng.choices(words, k=rng.randint(least, most)))


def changed(rng: random.Random, words: list[str], prompt: str) -> str:
    """Return a prompt with one word replaced."""
    parts = prompt.split()
    parts[rng.randrange(len(parts))] = rng.choice(words)
    return " ".join(parts)


def write_records(path: Path, count: int) -> None:
    """Write records with a label and a trace."""
    rng, words = random.Random(2), vocabulary()
    with path.open("w") as file:
        for number in range(count):
            row = {
                "prompt": f"{number} {text(rng, words, 20, 100)}",
                "labels": {"request": "harmful" if number % 2 else "unharmful"},
                "reasoning": text(rng, words, 60, 120),
            }
            file.write(json.dumps(row) + "\n")


def make_tokenizer(folder: Path) -> None:
    """Make a small model, for its tokenizer."""
    from guardreasoner.cli.commands.base_model import make_base_model
    from guardreasoner.records import read_records

    write_records(folder / "sample.jsonl", 1000)
    rows = [json.loads(line) for line in (folder / "sample.jsonl").open()]
    with (folder / "sample.jsonl").open("w") as file:
        file.writelines(json.dumps({"id": str(n), **row}) + "\n" for n, row in enumerate(rows))
    make_base_model(
        str(folder / "base"), read_records(folder / "sample.jsonl"), vocabulary=8000, layers=1, hidden_size=64
    )


if __name__ == "__main__":
    main()
