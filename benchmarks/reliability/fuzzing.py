"""Random changes of valid files and outputs, given to each reader and parser for ten minutes."""

import base64
import inspect
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from reliability.part import Outcome, Part, Trial, cases

MINUTES = 10
SEEDS = (
    b'{"id": "a/1", "prompt": "How do I mend a kettle?", "response": null, "labels": {"request": "unharmful"}, '
    b'"reasoning": "It is a kettle.", "source": "a"}\n',
    b'{"record_id": "a/1", "model": "m", "fingerprint": "f", "index": 0, "seed": 0, "completion": "Answers:"}\n',
    b'{"prompt": "Human user:\\nHi\\n\\n---\\n\\nAnswers: \\n", "predict": "x\\nAnswers: \\nRequest: harmful\\n'
    b'Completion: refusal\\nResponse: unharmful", "label": "harmful"}\n',
    b"The user asks.\n\nAnswers: \nRequest: unharmful\nCompletion: refusal\nResponse: unharmful<|eot_id|>",
    b"# Task 1\n## Reasoning Step 1: A.\n\n# Task 2\n## Reasoning Step 1: B.\n\nAnswers:\nRequest: harmful",
    b'id\tprompt\tlabel\n1\t"a"\tharmful\n2\tb\tunharmful\n',
    b"- a: [1, 2]\n  b: {c: null}\n",
)
"""Valid inputs of all kinds; a reader of one kind must refuse those of another."""
_TOKENS = (
    *(b"", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", "\u202e".encode(), "\u2028".encode(), b"\x1b[2J"),
    *(b"\r", b"\n\n", b"\t", b'"', b"'", b"{", b"}", b"[", b"]", b":", b",", b"null", b"NaN", b"-1e999", b"\\u0000"),
    *(b"\\ud800", b"Answers:", b"Request: harmful", b"Response:", b"<think>", b"</think>", b"<|eot_id|>", b"# Task 1"),
    *(b" " * 5000, b"[" * 2000, b"9" * 5000),
)


def _listed() -> Iterator[Trial]:
    from tests.support import fuzz

    checks = [
        (name.removeprefix("check_"), check)
        for name, check in inspect.getmembers(fuzz, inspect.isfunction)
        if name.startswith("check_")
    ]
    for minute in range(MINUTES):
        for name, check in checks:
            yield Trial(f"{name}/minute {minute}", partial(_fuzz, name=name, check=check, minute=minute))


def _fuzz(_: Path, name: str, check: Callable[[bytes], object], minute: int, seconds: float = 60.0) -> Outcome:
    """Give changed inputs to a check for a minute; the failure holds the first input on which it raised."""
    rng = random.Random(f"{name}/{minute}")
    end, inputs, slowest = time.monotonic() + seconds, 0, 0.0
    while (started := time.monotonic()) < end:
        data = changed(rng)
        inputs += 1
        try:
            check(data)
        except Exception as error:
            text = base64.b64encode(data).decode()
            return Outcome(failure=f"{type(error).__name__}: {error} on base64 {text}", note=f"{inputs} inputs")
        slowest = max(slowest, time.monotonic() - started)
    return Outcome(note=f"{inputs:,} inputs, the slowest took {slowest:.2f} s")


def changed(rng: random.Random) -> bytes:
    """Return a valid input with a few random changes: bytes replaced, parts repeated, removed, moved or joined."""
    data = bytearray(rng.choice(SEEDS) * rng.choice((1, 1, 1, 2, 5)))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8, 30))):
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((0, 1, 1, 4, 40)))
        match rng.randrange(5):
            case 0:
                data[start:end] = rng.randbytes(end - start)
            case 1:
                data[start:end] = rng.choice(_TOKENS)
            case 2:
                data[start:start] = data[start:end] * rng.choice((1, 3, 100))
            case 3:
                del data[start:end]
            case _:
                other = rng.choice(SEEDS)
                cut = rng.randint(0, len(other))
                data[start:end] = other[cut : cut + 60]
    return bytes(data)


PART = Part(
    "fuzzing",
    "fuzzing of record reader, parsers, rollout and prediction readers: 10 minutes each, no crash",
    0,
    "minutes",
    cases(_listed),
)
