"""How `pairs` grows with its rollouts: seconds and peak memory of the real command, in a process of its own.

Four outputs a record, of about a thousand characters, a third of them with a dash outside Latin-1, which doubles what a
text takes in memory; each ends in an answer block as models write them, some in none. All is drawn from a seed.

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
WORDS = 5_000
PARTS = ("home", "digital", "health", "other")
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
)
BLOCKS = (
    "Answers: \nRequest: {0}\nCompletion: {1}\nResponse: {2}",
    "# Answers\n\nRequest: {0}\nCompletion: {1}\nResponse: {2}\n",
    "Request: {0}, Completion: {1}, Response: {2}",
)


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[1_000, 10_000, 125_000])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="for the command, last")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        figures = [measure(Path(folder), count, arguments.flags) for count in arguments.records]
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure(folder: Path, count: int, flags: Sequence[str]) -> dict[str, Any]:
    """Write the rollouts of ``count`` records, pair them, show and return the figures."""
    own = folder / str(count)
    own.mkdir()
    write_rollouts(own, count)
    size = (own / "rollouts.jsonl").stat().st_size
    words = ["pairs", "--rollouts", str(own), "--out", str(own / "pairs.jsonl"), *flags]
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "guardreasoner", *words], stdout=subprocess.DEVNULL)
    _, status, used = wait(child)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"the command ended with {status}")
    pairs = sum(1 for _ in (own / "pairs.jsonl").open("rb"))
    figures = {
        "records": count,
        "rollouts": K * count,
        "megabytes": size / 1e6,
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
        "pairs": pairs,
    }
    print(
        f"{K * count:>9,} rollouts of {count:>7,} records, {size / 1e6:7.1f} MB: {seconds:6.2f} s, peak "
        f"{figures['peak_mb']:5.0f} MB, {pairs:,} pairs",
        flush=True,
    )
    for file in own.iterdir():
        file.unlink()
    return figures


def wait(child: subprocess.Popen[bytes]) -> tuple[int, int, resource.struct_rusage]:
    """Wait for a child and return its id, exit status and what it used."""
    return os.wait4(child.pid, 0)


def write_rollouts(folder: Path, count: int) -> None:
    """Write ``records.jsonl`` and ``rollouts.jsonl``."""
    rng = random.Random(0)
    words = ["".join(rng.choices(PIECES, k=rng.randint(1, 4))) for _ in range(WORDS)]
    texts = [" ".join(rng.choices(words, k=400)) for _ in range(500)]  # sentences recur; what is read is as long
    with (folder / "records.jsonl").open("w") as records, (folder / "rollouts.jsonl").open("w") as rollouts:
        for record, outputs in made(rng, texts, count):
            records.write(json.dumps(record, ensure_ascii=False) + "\n")
            rollouts.writelines(json.dumps(output, ensure_ascii=False) + "\n" for output in outputs)


def made(rng: random.Random, texts: Sequence[str], count: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield records with their outputs: some always right, some never, some mixed, a few without an answer."""
    for number in range(count):
        name, part = f"train/{PARTS[number % 4]}/{number:06d}", PARTS[number % 4]
        labels = {
            "request": rng.choice(("harmful", "unharmful")),
            "completion": rng.choice(("refusal", "compliance")),
            "response": rng.choice(("harmful", "unharmful")),
        }
        record = {
            "id": name,
            "prompt": f"{number} {some(rng, texts, 300)}",
            "response": some(rng, texts, 400),
            "labels": labels,
            "source": f"made/{part}",
        }
        right = rng.choice((1.0, 1.0, 1.0, 0.7, 0.3, 0.0))
        yield record, [output(rng, texts, name, labels, index, rng.random() < right) for index in range(K)]


def output(
    rng: random.Random, texts: Sequence[str], name: str, labels: dict[str, str], index: int, right: bool
) -> dict[str, Any]:
    """Return one rollout."""
    request = labels["request"] if right else {"harmful": "unharmful", "unharmful": "harmful"}[labels["request"]]
    block = rng.choice(BLOCKS).format(request, labels["completion"], labels["response"])
    sign = rng.choice(("—", "-", "-"))
    reasoning = f"Reasoning Step 1: {sign} {some(rng, texts, CHARACTERS // 2)}\nReasoning Step 2: {sign} "
    text = f"{reasoning}{some(rng, texts, CHARACTERS - len(reasoning) - len(block))}"
    completion = text if rng.random() < 0.02 else f"{text}\n\n{block}"
    return {
        "record_id": name,
        "model": "main",
        "fingerprint": "0" * 64,
        "index": index,
        "seed": 0,
        "completion": completion,
    }


def some(rng: random.Random, texts: Sequence[str], length: int) -> str:
    """Return so many characters out of a text."""
    text = rng.choice(texts)
    start = rng.randrange(max(1, len(text) - length))
    return text[start : start + length]


if __name__ == "__main__":
    main()
