"""Measures how fast a guard starts: Guard.load from a cold process, and the first direct verdict after it.

    python benchmarks/guard_start.py checkpoints/rsft

Loading, with all imports, is compared with ``import torch``, and with the import of the network's class from
transformers, which no program that uses this class can avoid. The first direct verdict is compared with the first
forward pass of the network over the same tokens, and the median of later verdicts with that of later passes. Each
measurement is a new process; the measurements alternate, and medians of the rounds are shown.
"""

import argparse
import json
import subprocess
import sys
from statistics import median
from typing import Any

from peers.flags import positive_int

LATER = 20

PROMPT, RESPONSE = "How do I open the lock of a door?", "Rake the pins with a tension wrench, one after the other."

PROGRAMS = {
    "import torch": "import torch",
    "import the network's class": """
import torch
from transformers import AutoConfig, MODEL_FOR_CAUSAL_LM_MAPPING
MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.from_pretrained(MODEL))]
""",
    "Guard.load": """
from guardreasoner import Guard
Guard.load(MODEL, speed="direct")
""",
}
"""What is measured from the start of a process, by name."""

VERDICT = """
from guardreasoner import Guard
guard = Guard.load(MODEL, speed="direct")
measured = lambda: guard.check(PROMPT, RESPONSE)
"""
PASS = """
from guardreasoner import Guard, Query
from guardreasoner.guard.query import record_of_query
guard = Guard.load(MODEL, speed="direct")
answer = guard.prompt_tokenizer.format.target(record_of_query(Query(PROMPT, RESPONSE)), "direct")
tokens = guard.prompt_tokenizer
ids = tokens.prompt(record_of_query(Query(PROMPT, RESPONSE)), "direct") + tokens.completion(answer)
import torch
ids = torch.tensor([ids])
def measured():
    with torch.inference_mode():
        guard.backbone.network(input_ids=ids)
"""


def main() -> None:
    """Run the measurements and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="model folder of a guard with direct answers")
    parser.add_argument("--rounds", type=positive_int, default=3, help="rounds of alternating measurements (default 3)")
    arguments = parser.parse_args()
    starts: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    passes: dict[str, list[dict[str, float]]] = {"verdict": [], "pass": []}
    for _ in range(arguments.rounds):
        for name, program in PROGRAMS.items():
            starts[name].append(_start(program, arguments.model))
        for name, program in (("verdict", VERDICT), ("pass", PASS)):
            passes[name].append(_calls(program, arguments.model))

    torch = median(starts["import torch"])
    print(f"{'from a cold process':<30}{'seconds':>9}{'ratio':>8}")
    for name, seconds in starts.items():
        print(f"{name:<30}{median(seconds):>9.2f}{median(seconds) / torch:>8.2f}")
    print(f"\n{'direct verdict':<30}{'verdict':>9}{'pass':>9}{'ratio':>8}   (milliseconds)")
    for kind in ("first", "later"):
        verdict, bare = (1000 * median(one[kind] for one in passes[name]) for name in ("verdict", "pass"))
        print(f"{kind:<30}{verdict:>9.1f}{bare:>9.1f}{verdict / bare:>8.2f}")


def _start(program: str, model: str) -> float:
    """Return the seconds that a program takes in a new process, without the start of Python itself."""
    return float(
        _run(f"import time\nstart = time.perf_counter()\n{program}\nprint(time.perf_counter() - start)", model)
    )


def _calls(program: str, model: str) -> dict[str, float]:
    """Return the seconds of the first call of ``measured``, which a program defines, and the median of later calls."""
    timed: dict[str, Any] = json.loads(
        _run(
            f"""
import json, time
from statistics import median
{program}
seconds = []
for _ in range(1 + {LATER}):
    start = time.perf_counter()
    measured()
    seconds.append(time.perf_counter() - start)
print(json.dumps(dict(first=seconds[0], later=median(seconds[1:]))))
""",
            model,
        )
    )
    return timed


def _run(program: str, model: str) -> str:
    given = f"MODEL, PROMPT, RESPONSE = {model!r}, {PROMPT!r}, {RESPONSE!r}\n"
    done = subprocess.run([sys.executable, "-c", given + program], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


if __name__ == "__main__":
    main()
