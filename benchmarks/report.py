"""Write docs/performance.md from the figures in benchmarks/results/.

python benchmarks/report.py
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sections import growth, mining, overhead, training

HERE = Path(__file__).parent
OPENING = """# Performance

Made by `python benchmarks/report.py` from `benchmarks/results/`; do not edit. Each comparison is one command, and its
`--help` says how it measures. In short: same weights, token ids, order, optimizer, threads and allocator on both sides;
equal losses before any time is taken; TRL's fastest settings searched; every run a process of its own, after a step to
warm up; both sides in turn, medians. *Memory* is the peak of the steps above what the process held before it loaded the
model, *process* the whole of it, MFU the work that is needed at least (prompt once a pair, output layer on completions)
over the measured rate of matrix products. Our side computes the instruction that all prompts share once a step, and the
count has it once an example, so our MFU reads higher than the processor's use, most of all in R-SFT. The time for the
reference is not in the speed; it is told beside it. How far a search went (settings, steps) is in its JSON and differs.
Sampling is compared in the same way: equal greedy texts first, the other side's best settings searched, loading not
counted. What was not measured is not here.
"""
SECTIONS: dict[str, Any] = {
    "hsdpo": training,
    "rsft": training,
    "mining": mining,
    "growth": growth,
    "overhead": overhead,
}
"""What writes about a result, by what it compares, in the order of the page."""


def main() -> None:
    """Read all results and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of JSON files")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "performance.md")
    arguments = parser.parse_args()
    paths = sorted(arguments.results.glob("*.json"))
    if not paths:
        sys.exit(
            f"error: no result in {arguments.results}\n"
            f"hint: python benchmarks/hsdpo_vs_trl.py --json {arguments.results / 'hsdpo.json'}"
        )
    results = []
    for path in paths:
        try:
            results.append(json.loads(path.read_text(encoding="utf-8")))
            assert results[-1]["comparison"] in SECTIONS
        except (ValueError, KeyError, TypeError, AssertionError):
            sys.exit(f"error: {path}: not a result of these benchmarks")
    arguments.out.write_text(page(results), encoding="utf-8")
    print(f"{arguments.out}: {len(results)} results")


def page(results: Sequence[dict[str, Any]]) -> str:
    """Return the page for some results; what was not measured is not on it."""
    order = list(SECTIONS)
    ordered = sorted(results, key=lambda result: order.index(result["comparison"]))
    rows = [row for result in ordered for row in SECTIONS[result["comparison"]].overview(result)]
    table = ["| | ratio | median | range | wanted | |", "|---|---|---|---|---|---|", *rows, ""]
    return "\n".join([OPENING, *table, *(SECTIONS[result["comparison"]].section(result) for result in ordered)])


if __name__ == "__main__":
    main()
