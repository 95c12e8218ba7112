"""Time and memory of reading, checking and tokenizing by data size, and the cost of the contamination check.

Each size runs twice in a separate process: without a cache, and with the cache of the first run. Records are random, in
JSONL: prompts of 20 to 100 words and reasoning of 60 to 120. Peak memory is that of the whole process, including torch
and the tokenizer.

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

VOCABULARY = 20_000
TRAINING, BENCHMARK, PLANTED = 100_000, 12_000, 500
SYLLABLES = (
    *("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu"),
    *("ra", "se", "ti", "vo", "zu", "ar", "en", "is", "or", "un"),
)


def main() -> None:
    """Measure all sizes and the contamination check, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # the folder that a child process measures
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure_start(arguments.child)))
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        growth = [measure(Path(folder), count) for count in arguments.records]
    contamination = measure_contamination()
    if arguments.json:
        arguments.json.write_text(json.dumps({"growth": growth, "contamination": contamination}, indent=1) + "\n")


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Write ``count`` records, start on them twice, and print and return the measurements."""
    data_folder = folder / str(count)
    data_folder.mkdir()
    write_records(data_folder / "train.jsonl", count)
    size = (data_folder / "train.jsonl").stat().st_size
    make_tokenizer(data_folder)
    first, second = run_child(data_folder), run_child(data_folder)
    (data_folder / "train.jsonl").unlink()
    result = {"records": count, "megabytes": size / 1e6, "first": first, "second": second}
    print(
        f"{count:>9,} records, {size / 1e6:7.1f} MB: checked in {first['check_s']:7.2f} s, tokenized in "
        f"{first['tokenize_s']:7.2f} s ({first['tokens']:,} tokens), peak {first['peak_mb']:6.0f} MB; "
        f"second start {second['tokenize_s']:5.2f} s, peak {second['peak_mb']:6.0f} MB",
        flush=True,
    )
    return result


def run_child(folder: Path) -> dict[str, Any]:
    """Measure one start in a separate process."""
    process = subprocess.run(
        [sys.executable, __file__, "--child", str(folder)], capture_output=True, text=True, check=True
    )
    return json.loads(process.stdout.splitlines()[-1])


def measure_start(folder: Path) -> dict[str, Any]:
    """Check and tokenize the data in a folder as ``fit`` does, and return seconds and peak memory."""
    from lightning.pytorch import Trainer

    from guardreasoner.model.backbone import Backbone
    from guardreasoner.sources.files import Files
    from guardreasoner.training.reasoning_data import ReasoningDataModule
    from guardreasoner.training.rsft import RSFTModule

    source = Files(train=str(folder / "train.jsonl"), validation_share=0.01)
    data = ReasoningDataModule(source, max_length=4096, cache=str(folder / "tokenized"))
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    data.trainer.strategy.connect(RSFTModule(Backbone(str(folder / "base"))))
    has_cache = any((folder / "tokenized").glob("*/notes.json"))
    start_time = time.perf_counter()
    if not has_cache:
        next(iter(source.records("train")))
    checked = time.perf_counter()
    data.setup("fit")
    ended = time.perf_counter()
    lengths = data.train.lengths  # type: ignore[attr-defined]
    return {
        "check_s": checked - start_time,
        "tokenize_s": ended - checked,
        "tokens": int(lengths.sum()),
        "examples": len(data.train) + len(data.validation),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_contamination() -> dict[str, Any]:
    """Look up training records among benchmark records.

    Some are planted: benchmark prompts in other case and white space, or with one word replaced.
    """
    from guardreasoner.records import Record
    from guardreasoner.sources.contamination import ContaminationIndex

    rng = random.Random(0)
    words = make_vocabulary()
    benchmark = [Record(f"bench/{n}", random_text(rng, words, 20, 100)) for n in range(BENCHMARK)]
    records = [Record(f"train/{n}", random_text(rng, words, 20, 100)) for n in range(TRAINING - 2 * PLANTED)]
    planted = rng.sample(benchmark, 2 * PLANTED)
    equal = [Record(f"equal/{n}", f"  {r.prompt.upper()}\u200b ") for n, r in enumerate(planted[:PLANTED])]
    near = [Record(f"near/{n}", replace_word(rng, words, r.prompt)) for n, r in enumerate(planted[PLANTED:])]
    start_time = time.perf_counter()
    index = ContaminationIndex(benchmark)
    matches = [match for record in (*records, *equal, *near) if (match := index.match(record))]
    seconds = time.perf_counter() - start_time
    found = {kind: sum(match.record.startswith(kind) for match in matches) for kind in ("equal", "near", "train")}
    print(
        f"{TRAINING:,} training against {BENCHMARK:,} benchmark records: {seconds:.1f} s; found {found['equal']} of "
        f"{PLANTED} equal and {found['near']} of {PLANTED} with one word changed; {found['train']} others",
        flush=True,
    )
    return {"seconds": seconds, "found": found, "planted": PLANTED}


def make_vocabulary() -> list[str]:
    """Return random words."""
    rng = random.Random(1)
    return ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(VOCABULARY)]


def random_text(rng: random.Random, words: list[str], min_words: int, max_words: int) -> str:
    """Return a random text of ``min_words`` to ``max_words`` words."""
    return " ".join(rng.choices(words, k=rng.randint(min_words, max_words)))


def replace_word(rng: random.Random, words: list[str], prompt: str) -> str:
    """Return the prompt with one random word replaced."""
    parts = prompt.split()
    parts[rng.randrange(len(parts))] = rng.choice(words)
    return " ".join(parts)


def write_records(path: Path, count: int) -> None:
    """Write random records with a label and reasoning."""
    rng, words = random.Random(2), make_vocabulary()
    with path.open("w") as file:
        for number in range(count):
            row = {
                "prompt": f"{number} {random_text(rng, words, 20, 100)}",
                "labels": {"request": "harmful" if number % 2 else "unharmful"},
                "reasoning": random_text(rng, words, 60, 120),
            }
            file.write(json.dumps(row) + "\n")


def make_tokenizer(folder: Path) -> None:
    """Make a small model for its tokenizer."""
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
