"""Generated inputs and random changes of valid ones, given to each reader and parser for ten minutes."""

import inspect
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import seed as hypothesis_seed

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
    from tests.support.fuzz import STRATEGIES

    for minute in range(MINUTES):
        for check, strategy in STRATEGIES.items():
            run = partial(_fuzz, check=check, strategy=strategy, minute=minute)
            yield Trial(f"{check.__name__.removeprefix('check_')}/minute {minute}", run)


def _fuzz(_: Path, check: Callable[[Any], object], strategy: Any, minute: int, seconds: float = 60.0) -> Outcome:
    """Give generated and changed inputs to a check for a minute; a failure holds the smallest input that is known."""
    rng = random.Random(f"{check.__name__}/{minute}")
    takes_bytes = inspect.signature(check).parameters.get("data") is not None
    end, inputs, slowest = time.monotonic() + seconds, 0, 0.0
    given_value: Any = None

    def attempt(value: Any) -> None:
        nonlocal given_value, inputs, slowest
        given_value = value
        started = time.monotonic()
        check(value)
        inputs, slowest = inputs + 1, max(slowest, time.monotonic() - started)

    quiet = settings(max_examples=_ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    try:
        while time.monotonic() < end:
            hypothesis_seed(rng.getrandbits(64))(quiet(given(strategy)(attempt)))()
            for _ in range(_ROUND if takes_bytes else 0):
                attempt(changed(rng))
    except Exception as error:
        return Outcome(failure=f"{type(error).__name__}: {error} on {given_value!r}")
    return Outcome(note=f"{inputs:,} inputs, the slowest took {slowest:.2f} s")


_ROUND = 50
"""Inputs that are made in one way before the other way has its turn."""


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
