"""Seconds and peak memory of the command `pairs` by number of rollouts.

Each record has four random outputs of about a thousand characters. A third of them contain a dash outside Latin-1,
which doubles the memory of a Python string. Most end in one of the answer blocks that models write, a few in none.

    python benchmarks/pairing_growth.py                            # 1,000 to 125,000 records: 4,000 to 500,000 rollouts
    python benchmarks/pairing_growth.py --records 1000 --json growth.json --flags --preset released
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

K = 4
CHARACTERS = 1000
VOCABULARY = 5_000
TOPICS = ("home", "digital", "health", "other")
SYLLABLES = (
    *("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu"),
    *("ra", "se", "ti", "vo", "zu", "ar", "en", "is", "or"),
)
BLOCKS = (
    "Answers: \nRequest: {0}\nCompletion: {1}\nResponse: {2}",
    "# Answers\n\nRequest: {0}\nCompletion: {1}\nResponse: {2}\n",
    "Request: {0}, Completion: {1}, Response: {2}",
)


def main() -> None:
    """Measure all sizes and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[1_000, 10_000, 125_000])
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="flags of the command; must come last")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        results = [measure(Path(folder), count, arguments.flags) for count in arguments.records]
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(folder: Path, count: int, flags: Sequence[str]) -> dict[str, Any]:
    """Write the rollouts of ``count`` records, pair them, and print and return the measurements."""
    data_folder = folder / str(count)
    data_folder.mkdir()
    write_rollouts(data_folder, count)
    size = (data_folder / "rollouts.jsonl").stat().st_size
    argv = ["pairs", "--rollouts", str(data_folder), "--out", str(data_folder / "pairs.jsonl"), *flags]
    start_time = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "guardreasoner", *argv], stdout=subprocess.DEVNULL)
    _, status, usage = wait(child)
    seconds = time.perf_counter() - start_time
    if status:
        sys.exit(f"the command exited with status {status}")
    pairs = sum(1 for _ in (data_folder / "pairs.jsonl").open("rb"))
    result = {
        "records": count,
        "rollouts": K * count,
        "megabytes": size / 1e6,
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
        "pairs": pairs,
    }
    print(
        f"{K * count:>9,} rollouts of {count:>7,} records, {size / 1e6:7.1f} MB: {seconds:6.2f} s, peak "
        f"{result['peak_mb']:5.0f} MB, {pairs:,} pairs",
        flush=True,
    )
    for file in data_folder.iterdir():
        file.unlink()
    return result


def wait(child: subprocess.Popen[bytes]) -> tuple[int, int, resource.struct_rusage]:
    """Wait for a child process; return its id, exit status and resource usage."""
    return os.wait4(child.pid, 0)


def write_rollouts(folder: Path, count: int) -> None:
    """Write ``records.jsonl`` and ``rollouts.jsonl``."""
    rng = random.Random(0)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(VOCABULARY)]
    texts = [
        " ".join(rng.choices(words, k=400)) for _ in range(500)
    ]  # texts recur across records, which keeps generation fast
    with (folder / "records.jsonl").open("w") as records, (folder / "rollouts.jsonl").open("w") as rollouts:
        for record, outputs in random_records(rng, texts, count):
            records.write(json.dumps(record, ensure_ascii=False) + "\n")
            rollouts.writelines(json.dumps(output, ensure_ascii=False) + "\n" for output in outputs)


def random_records(
    rng: random.Random, texts: Sequence[str], count: int
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield records with outputs that are all right, all wrong or mixed, a few of them without an answer block."""
    for number in range(count):
        record_id, topic = f"train/{TOPICS[number % 4]}/{number:06d}", TOPICS[number % 4]
        labels = {
            "request": rng.choice(("harmful", "unharmful")),
            "completion": rng.choice(("refusal", "compliance")),
            "response": rng.choice(("harmful", "unharmful")),
        }
        record = {
            "id": record_id,
            "prompt": f"{number} {excerpt(rng, texts, 300)}",
            "response": excerpt(rng, texts, 400),
            "labels": labels,
            "source": f"made/{topic}",
        }
        accuracy = rng.choice((1.0, 1.0, 1.0, 0.7, 0.3, 0.0))
        yield record, [output(rng, texts, record_id, labels, index, rng.random() < accuracy) for index in range(K)]


def output(
    rng: random.Random, texts: Sequence[str], record_id: str, labels: dict[str, str], index: int, right: bool
) -> dict[str, Any]:
    """Return one rollout as a JSON row."""
    request = labels["request"] if right else {"harmful": "unharmful", "unharmful": "harmful"}[labels["request"]]
    block = rng.choice(BLOCKS).format(request, labels["completion"], labels["response"])
    dash = rng.choice(("—", "-", "-"))
    reasoning = f"Reasoning Step 1: {dash} {excerpt(rng, texts, CHARACTERS // 2)}\nReasoning Step 2: {dash} "
    text = f"{reasoning}{excerpt(rng, texts, CHARACTERS - len(reasoning) - len(block))}"
    completion = text if rng.random() < 0.02 else f"{text}\n\n{block}"
    return {
        "record_id": record_id,
        "model": "main",
        "fingerprint": "0" * 64,
        "index": index,
        "seed": 0,
        "completion": completion,
    }


def excerpt(rng: random.Random, texts: Sequence[str], length: int) -> str:
    """Return ``length`` characters from a random text."""
    text = rng.choice(texts)
    start = rng.randrange(max(1, len(text) - length))
    return text[start : start + length]


if __name__ == "__main__":
    main()
